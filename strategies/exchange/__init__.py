"""The forms in which arrays and messages travel: Flower's records, seals, keys.

What Archipel takes from Flower's inside on both sides is here too.
"""

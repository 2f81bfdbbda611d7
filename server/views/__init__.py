"""The output of `archipel-coordinator` as data.

It is built from its folder, and rendered by text.py or as JSON.
"""

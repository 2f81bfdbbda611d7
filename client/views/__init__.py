"""The output of `archipel-site` as data.

It is built from a hospital's folder, and rendered by text.py or as JSON.
"""

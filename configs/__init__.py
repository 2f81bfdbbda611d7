"""The contract: what both sides agree on, send and write down.

Standard library and PyYAML only.
"""

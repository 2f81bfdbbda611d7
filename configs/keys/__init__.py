"""Declared keys of configuration files.

They are declared once; reader, writer and schema follow from that.
"""

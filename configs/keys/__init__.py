"""Declared keys: what may stand in a configuration file, said once; reader, writer and schema follow from it."""

"""Draft studies: a first study file, from public documentation and the names in headers."""

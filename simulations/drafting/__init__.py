"""Draft studies: what a file's columns look like, and a first study file from documentation and headers."""

"""Encoders: fixed public functions that make numbers of an image, one file for each."""

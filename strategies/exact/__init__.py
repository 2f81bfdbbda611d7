"""Arithmetic with the same bits on every processor: products, sums and functions."""

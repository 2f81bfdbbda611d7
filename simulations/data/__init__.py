"""Open data sets for simulations and benchmarks, one folder each.

Each has its origin and licence.
"""

"""Open data sets that the simulations and benchmarks run on, one folder each, with their origin and licence."""

"""Study kits on the researcher's laptop: a new one, its test, its wheel, and where simulations find it."""

"""`archipel tune`: the choice of a study's settings on validation patients, which no epsilon covers."""

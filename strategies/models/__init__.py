"""The models: parameters, initial values, and evaluation, one file for each kind."""

"""Patients as models and counts read them, one file for each kind of data."""

"""Patients as models and counts read them: one file a kind of data."""

"""The hospital's way to the coordinator: the one folder of client/ that talks to it."""

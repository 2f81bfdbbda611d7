"""The kinds of release, one file each with its hospital's half and its coordinator's half."""

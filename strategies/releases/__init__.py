"""What may leave a hospital: each kind of release in one file, its hospital's half and its coordinator's half."""

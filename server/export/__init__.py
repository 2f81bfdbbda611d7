"""The final model with its preprocessing, as a file that other software reads."""

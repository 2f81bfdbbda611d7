"""Study kits: which are here, and the one function that executes them."""

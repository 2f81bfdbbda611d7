"""The strategies: how hospitals' models become one, and what a strategy changes at a hospital."""

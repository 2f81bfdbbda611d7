"""The strategies: how hospitals' models are combined, and what each changes at a hospital."""

"""Secure aggregation: hospitals' sums are masked in pairs, and share one study's worth of noise."""

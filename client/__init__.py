"""The hospital's side: what sees patients, what it may do, and what leaves."""

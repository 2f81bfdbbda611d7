"""The hospital's side: the worker that reads patients, the node that decides what it may send."""

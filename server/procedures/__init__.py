"""What the coordinator does with a session: one file a procedure."""

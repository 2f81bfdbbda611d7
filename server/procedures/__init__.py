"""The procedures that the coordinator carries out with a session, one file each."""

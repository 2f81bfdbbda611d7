"""The uplink: the only folder of client/ that talks to the coordinator."""

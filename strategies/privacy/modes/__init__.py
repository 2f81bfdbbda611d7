"""The privacy modes: which noise is added by whom, and the guarantee that follows."""

"""The science: what to learn, how to protect it, how to combine it.

No disk, no sockets, no clock.
"""

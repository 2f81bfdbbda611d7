"""Processes that work for one patient each: what a kit's code runs in.

limits.py   what such a process may do: compute, read one pipe, write one pipe
zygote.py   the process that forks them; it has seen no patient and run no line of a kit
slots.py    when each of them runs: moments that do not depend on who is there
"""

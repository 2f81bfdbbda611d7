"""Processes that work for one patient each: what a kit's code runs in.

limits.py   what such a process may do: compute, read one pipe, write one pipe
zygote.py   the process that forks them; it has seen no patient and run no line of a kit
slots.py    when each of them runs: moments that do not depend on who is there
of_kits.py  what the children of a worker do for a study: a patient's gradient or score, a record decoded
one_file.py the record that a child decodes, in the place of a file system
"""

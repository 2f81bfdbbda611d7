"""Flower's SuperLink behind the gateway: serving it, calling it, and limits on messages.

__main__.py      serves it on a Unix socket: python -m server.superlink SOCKET FOLDER
exchange.py      whole messages in one request, before its application; holds.py holds them
store.py         its store of message parts
client.py        nodes and runs, for the coordinator's other processes
grid.py          a Flower Grid over the socket; arriving.py: a reply on its way; spool.py: large ones in files
sealed_grid.py   the Grid for real hospitals: seals, opens, repeats
instructions.py  a part of it: an instruction under way; talks.py: what each node can talk
flower_inside.py names of Flower that it does not promise to applications
"""

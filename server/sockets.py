"""The coordinator's Unix sockets: their names and their permissions."""

import socket
from pathlib import Path

AUTH_SOCKET, SUPERLINK_SOCKET = "auth.sock", "superlink.sock"


def private_socket(path: Path) -> socket.socket:
    """Return a Unix socket that its owner alone can open; uvicorn would open its own to everybody."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener

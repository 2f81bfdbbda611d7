"""The check whether the connection carries messages as large as the node's.

It is part of `archipel-site check`. An antivirus that gives up after a few thousand bytes, a tunnel that loses large
packets: the coordinator answers a short question there, and no message ever arrives. So what weighs as much is asked,
over one connection (reach.py).

>>> whole = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"
>>> is_whole(whole), is_whole(whole[:-1]), goes_on(whole)
(True, False, True)
"""

REQUESTS, WEIGHT = 32, 2000  # requests over one connection, and bytes of each: together the size of a small model
PADDING = "archipel-padding"  # a header that is not read


def heavy(host: str) -> bytes:
    """Return a request for the health path that weighs more than a packet."""
    return f"GET /health HTTP/1.1\r\nHost: {host}\r\n{PADDING}: {'x' * WEIGHT}\r\n\r\n".encode("ascii")


def is_whole(answer: bytes) -> bool:
    """Return whether an answer has come with what its length says."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _fields(head).get(b"content-length", b"")
    return bool(end) and len(body) >= (int(length) if length.isdigit() else 0)


def goes_on(answer: bytes) -> bool:
    """Return whether the other side means to answer more on this connection (RFC 9112, 9.3)."""
    head = answer.partition(b"\r\n\r\n")[0]
    fields = _fields(head)
    if b"content-length" not in fields or fields.get(b"connection", b"").lower() == b"close":
        return False
    return head.startswith(b"HTTP/1.1 200")


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}

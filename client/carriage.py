"""Does the way to the coordinator carry as much as a node's messages are? A short question may pass where they do not.

An antivirus that gives up after a few thousand bytes, a tunnel that loses large packets: the coordinator answers there,
and no message ever arrives. So `archipel-site check` sends what weighs as much, over a connection of its own.
"""

import socket
import ssl

from client.fleet import proxy_to, tunnel
from configs.deployment import split_address

REQUESTS, WEIGHT = 32, 2000  # requests over one connection, and bytes of each: together the size of a small model
PADDING = "archipel-padding"  # a header that nobody reads


def cut_after(address: str, context: ssl.SSLContext, timeout_s: float = 5.0) -> tuple[int, str] | None:
    """Ask for the health path again and again over one connection, as the node goes through the hospital's proxy.

    Returns:
        After how many bytes, both ways together, it was "cut" or fell "silent"; None where it did neither.

    Raises:
        RunError: the environment names a proxy that is none. OSError: there is no connection to begin with.
    """
    host, port = split_address(address)
    proxy = proxy_to(host, port)
    request = f"GET /health HTTP/1.1\r\nHost: {host}\r\n{PADDING}: {'x' * WEIGHT}\r\n\r\n".encode("ascii")
    with socket.create_connection((proxy.host, proxy.port) if proxy else (host, port), timeout=timeout_s) as plain:
        if proxy and tunnel(plain, f"{host}:{port}", proxy) != 200:
            return None  # what keeps it from there is told elsewhere
        passed = 0
        try:
            with context.wrap_socket(plain, server_hostname=host) as tls:
                for _ in range(REQUESTS):
                    tls.sendall(request)
                    answer = _answer(tls)
                    passed += len(request) + len(answer)
                    if not answer:  # Python's TLS tells an end and a reset alike
                        return passed, "cut"
                    if not _goes_on(answer):
                        return None
        except TimeoutError:
            return passed, "silent"
        except OSError:
            return passed, "cut"
    return None


def _answer(tls: ssl.SSLSocket) -> bytes:
    """One answer with what its length says; what came of it where the connection ends before."""
    answer = b""
    while not _is_whole(answer) and len(answer) < 65_536 and (piece := tls.recv(4096)):
        answer += piece
    return answer if _is_whole(answer) else b""


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    length = _fields(head).get(b"content-length", b"")
    return bool(end) and len(body) >= (int(length) if length.isdigit() else 0)


def _goes_on(answer: bytes) -> bool:
    """Whether the other side means to answer more on this connection (RFC 9112, 9.3)."""
    head = answer.partition(b"\r\n\r\n")[0]
    fields = _fields(head)
    if b"content-length" not in fields or fields.get(b"connection", b"").lower() == b"close":
        return False
    return head.startswith(b"HTTP/1.1 200")


def _fields(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}

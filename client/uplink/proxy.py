"""The HTTP proxy that the environment names, and connections through it.

The variables are HTTPS_PROXY, else ALL_PROXY, except for the hosts of NO_PROXY.
"""

import re
import socket
import urllib.parse
import urllib.request
from base64 import b64encode
from dataclasses import dataclass, field

from configs.errors import RunError

# What httpx and urllib read in one way: neither a / nor a # in the account, nothing after the port.
_PROXY = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?(?:(?P<account>[^/?#\s]*)@)?"
    r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?"
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """The hospital's proxy. The account is never shown."""

    scheme: str  # http or https: how the proxy itself is spoken to
    host: str
    port: int
    account: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def proxy_to(host: str, port: int) -> Proxy | None:
    """Return the proxy that the environment names for this address; None where the way is direct.

    Raises:
        RunError: it names something else than an HTTP proxy; the value is not shown.
    """
    named = urllib.request.getproxies()
    variable = "HTTPS_PROXY" if named.get("https") else "ALL_PROXY"
    value = named.get("https") or named.get("all") or ""
    if not value or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    match = _PROXY.fullmatch(value.strip())
    scheme = (match["scheme"] or "http").lower() if match else ""
    if scheme.startswith("socks"):
        raise RunError(
            f"{variable}: expected an HTTP proxy, http://[NAME:PASSWORD@]HOST:PORT, found one of SOCKS; name the "
            "hospital's HTTP proxy, or exempt the coordinator (NO_PROXY)"
        )
    number = int(match["port"] or (443 if scheme == "https" else 80)) if match else 0
    if not match or scheme not in ("http", "https") or not 0 < number < 65_536:
        raise RunError(
            f"{variable}: expected http://[NAME:PASSWORD@]HOST:PORT, found something else (not shown: it may hold a "
            "password); write %23 %2F %40 for # / @ in a password"
        )
    name, _, password = (match["account"] or "").partition(":")
    account = (urllib.parse.unquote(name), urllib.parse.unquote(password)) if match["account"] else None
    return Proxy(scheme, match["host"].strip("[]"), number, account)


def tunnel(plain: socket.socket, target: str, proxy: Proxy) -> int:
    """Ask a proxy for a way through (RFC 9110, 9.3.6); its status code, 0 for none."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.account is not None:
        secret = b64encode(":".join(proxy.account).encode()).decode("ascii")
        lines.append(f"Proxy-Authorization: Basic {secret}")
    plain.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 8192:
        piece = plain.recv(1)  # not a byte of what follows
        if not piece:
            break
        head += piece
    parts = head.split(b"\r\n", 1)[0].split()
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0

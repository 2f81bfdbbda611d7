"""The address of a data base as a URL in an environment variable, and the way there.

PostgreSQL's is read by libpq (client/connectors/postgresql.py); this is for drivers that take their parts.

>>> form = Form("oracle", 1521, "SERVICE", ("ca", "tls"))
>>> address = form.read("EDS_URL", {"EDS_URL": "oracle://me:s%40cret@db.example.org/eds?ca=/etc/ssl/chu.pem"})
>>> address
Address(variable='EDS_URL', host='db.example.org', port=1521, name='eds')
>>> address.password, address.options, address.where
('s@cret', {'ca': '/etc/ssl/chu.pem'}, 'db.example.org:1521')
>>> form.read("EDS_URL", {"EDS_URL": "oracle://me:s@cret@db/eds"})
Traceback (most recent call last):
    ...
configs.errors.SourceError: EDS_URL: expected an address as oracle://USER:PASSWORD@HOST:PORT/SERVICE, found something \
else (not shown: it may hold a password); correct the variable, and write %40 for @, %2F for / in a password
"""

import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from client.forwarder import reach
from configs.errors import SourceError

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")


@dataclass(frozen=True)
class Address:
    """Where a data base is, and as whom to log in there."""

    variable: str
    host: str
    port: int
    name: str
    user: str = field(repr=False)
    password: str = field(repr=False)
    options: Mapping[str, str] = field(repr=False)

    @property
    def where(self) -> str:
        """Return host:port as site.yaml lists it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_this_machine(self) -> bool:
        """Return whether the data base is on this machine."""
        return is_this_machine(self.host)

    def way(self) -> tuple[str, int]:
        """Return where this process connects to reach it.

        Raises:
            SourceError: it is not in site.yaml's worker_network.
        """
        return reach(self.where)

    def choice(self, option: str, choices: tuple[str, ...], default: str) -> str:
        """Return what the address says of an option, the default where it says nothing.

        Raises:
            SourceError: it says something else.
        """
        choice = self.options.get(option, default)
        if choice not in choices:
            raise SourceError(f"{self.variable}: {option}: expected one of {', '.join(choices)}; correct the variable")
        return choice


@dataclass(frozen=True)
class Form:
    """How a kind of data base's address is written: scheme, usual port, what stands after the slash, options."""

    scheme: str
    port: int
    name: str
    options: tuple[str, ...]

    def read(self, variable: str, environment: Mapping[str, str]) -> Address:
        """Return the address in a variable.

        Raises:
            SourceError: there is none, or it is not one; nothing of it is shown.
        """
        url, form = environment.get(variable, "").strip(), f"{self.scheme}://USER:PASSWORD@HOST:PORT/{self.name}"
        if not url:
            raise SourceError(
                f"{variable}: expected a data base's address in this environment variable, found nothing; set it where "
                f"this command and the node start (systemd: EnvironmentFile), as {form}"
            )
        address = self._parts(variable, url)
        if address is None:
            raise SourceError(
                f"{variable}: expected an address as {form}, found something else (not shown: it may hold a password); "
                "correct the variable, and write %40 for @, %2F for / in a password"
            )
        if odd := address.options.keys() - {*self.options}:
            count = "one option" if len(odd) == 1 else f"{len(odd)} options"
            raise SourceError(
                f"{variable}: expected options of {', '.join(self.options)}, found {count} of another name; correct it"
            )
        return address

    def _parts(self, variable: str, url: str) -> Address | None:
        try:
            parts = urlsplit(url)
            port = parts.port or self.port
        except ValueError:
            return None
        name, host = unquote(parts.path.removeprefix("/")), parts.hostname or ""
        complete = parts.username and parts.password and name and "/" not in name and not parts.fragment
        if parts.scheme != self.scheme or not complete or not _HOST.fullmatch(host) or parts.netloc.count("@") != 1:
            return None
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if any(ord(sign) < 32 for sign in user + password + name):
            return None
        return Address(variable, host, port, name, user, password, dict(parse_qsl(parts.query, keep_blank_values=True)))


def is_number(host: str) -> bool:
    """Return whether a host is written as a number, no name."""
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(host))
    return False


def is_this_machine(host: str) -> bool:
    """Return whether a host is this machine itself."""
    return host == "localhost" or (is_number(host) and ipaddress.ip_address(host).is_loopback)


def cut_connections(way: tuple[str, int]) -> None:
    """Shut down this process's connections to an address: a driver that waits for a silent server has no other end."""
    with contextlib.suppress(OSError):
        ends = {found[4][:2] for found in socket.getaddrinfo(*way, type=socket.SOCK_STREAM)}
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError, ValueError), socket.socket(fileno=os.dup(int(entry))) as end:
                if end.getpeername()[:2] in ends:
                    end.shutdown(socket.SHUT_RDWR)

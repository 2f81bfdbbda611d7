"""Connections of the worker, which has no network, to the addresses in `worker_network`.

The addresses are listed in site.yaml; the worker reaches no other. There are two halves. The worker's
(`leave_network_but`) starts the other one, leaves the network, and listens inside its own namespace, on loopback, once
for each listed address. It hands each connection made there, as a file descriptor and its address's number, through a
pair of sockets to the other half: a process that stayed in the host's network, was started before any patient was read
and ends with the worker. That one knows the list from its start, connects to address number N and carries bytes. It
hands no socket back: one made in the host's network could be connected elsewhere. No filter: what is said to a data
base, and what its host does with it, is the data base's and its firewall's matter.

Which address a connector uses: a driver written in Python, the host and port as they are listed (`socket.getaddrinfo`
leads there); a driver that resolves names itself (libpq, ODBC), what `reach` returns, and the listed name for TLS to
verify (libpq: host=db.example.org hostaddr=127.0.0.1).

>>> loopback(["db.example.org:5432", "archive.example.org:5432", "[2001:db8::7]:1433", "127.0.0.1:1433"])
[('127.0.0.1', 5432), ('127.0.0.2', 5432), ('127.0.0.2', 1433), ('127.0.0.1', 1433)]
"""

import contextlib
import fcntl
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from client.isolation import die_with_parent, leave_network
from configs.commands import guard_lines
from configs.errors import RunError, SourceError
from configs.folder import split_address
from configs.parts import start

Address = tuple[str, int]
CONNECT_TIMEOUT_S = 10.0
CHUNK = 1 << 16
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
RESET, NO_RESET = (
    struct.pack("ii", 1, 0),
    struct.pack("ii", 0, 0),
)  # what closing does: the peer sees an error, or an end
_LOOPBACK = re.compile(r"127(\.[0-9]{1,3}){3}")
log = logging.getLogger("archipel.forwarder")
_ways: dict[tuple[str, str], Address] = {}  # of this process: host and port as listed -> where to connect
_confined = threading.Event()  # this process is a worker, which reaches what is listed; a simulation is none
_forwarder: list[subprocess.Popen[bytes]] = []  # kept, so that it is not collected while it runs


# In the worker


def leave_network_but(addresses: Sequence[str]) -> bool:
    """Leave the network but for these addresses (`host:port`); False where the kernel does not allow it: it then stays.

    To be called before any thread is started, and before any patient is read.

    Raises:
        RunError: the network is left, and nothing can be reached: the kernel allows no loopback of its own.
    """
    _confined.set()
    if not addresses:
        return leave_network()
    control = _start(addresses)
    alone = leave_network()
    ways = loopback(addresses) if alone else list(map(split_address, addresses))
    _ways.update({_key(*split_address(address)): door for address, door in zip(addresses, ways, strict=True)})
    if not alone:
        control.close()  # the forwarder sees it and ends
        _forwarder.pop().wait()
        return False
    try:
        _bring_up_loopback()
        listeners = [socket.create_server(door) for door in ways]
    except OSError as error:
        raise RunError(
            f"worker_network: the kernel lets this process leave the network but use no loopback of its own "
            f"({error.strerror}); allow unprivileged user namespaces their capabilities (AppArmor's profile)"
        ) from None
    for number, listener in enumerate(listeners):
        threading.Thread(target=_hand_over, args=(listener, control, number), daemon=True).start()
    socket.getaddrinfo = _listed_first(socket.getaddrinfo)
    return True


def reach(address: str) -> Address:
    """Return where this process connects to reach a listed address (`host:port`, as in site.yaml).

    A process that never was to leave the network, a simulation on a researcher's own machine, connects as it is.

    Raises:
        SourceError: it is not listed.
    """
    if not _confined.is_set():
        return split_address(address)
    path = _ways.get(_key(*split_address(address)))
    if path is None:
        raise SourceError(f"expected an address that site.yaml lists, found {address}; add it to worker_network")
    return path


def loopback(addresses: Sequence[str]) -> list[Address]:
    """Return a loopback address for each, with its own port.

    Its own too where it is one, else the first that is free.
    """
    listed = [split_address(address) for address in addresses]
    listed_loopback = {target for target in listed if _LOOPBACK.fullmatch(target[0])}
    ways = []
    for target in listed:
        if target not in listed_loopback:
            target = next(free for n in range(1, 255) if (free := (f"127.0.0.{n}", target[1])) not in listed_loopback)
            listed_loopback.add(target)
        ways.append(target)
    return ways


def _key(host: Any, port: Any) -> tuple[str, str]:
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    return name.lower().rstrip("."), str(port)


def _start(addresses: Sequence[str]) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        nothing = subprocess.DEVNULL  # the worker's own pipes are the node's
        process = start(  # without further variables: a data base's password is the worker's alone
            "client.forwarder",
            *(str(theirs.fileno()), *addresses),
            folder=Path("/"),
            stdin=nothing,
            stdout=nothing,
            pass_fds=[theirs.fileno()],
        )
        _forwarder.append(process)
    return ours


def _bring_up_loopback() -> None:
    """Set the loopback interface up, which is down in a new namespace (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def _hand_over(listener: socket.socket, control: socket.socket, number: int) -> None:
    while True:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # if it is not taken
                socket.send_fds(control, [bytes([number])], [connection.fileno()])
        except OSError as error:
            log.error("worker_network: a connection could not be handed over (%s)", error.strerror)
            time.sleep(0.1)  # too many open files, for instance: they are not gone at once


def _listed_first(ask: Callable[..., Any]) -> Callable[..., Any]:
    def getaddrinfo(host: Any, port: Any, family: int = 0, *rest: int, **named: int) -> Any:
        target = _ways.get(_key(host, port))
        return (
            ask(host, port, family, *rest, **named) if target is None else ask(*target, socket.AF_INET, *rest, **named)
        )

    return getaddrinfo


# In the host's network


def probe(address: str, timeout_s: float = 5.0) -> Literal["arrived", "resolve", "refused", "silent"]:
    """Connect to an address, from where this process is; how far it came."""
    host, port = split_address(address)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return "resolve"
    try:
        socket.create_connection((host, port), timeout_s).close()
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"
    return "arrived"


def serve(control: socket.socket, addresses: Sequence[Address]) -> None:
    """Carry each connection that is handed over to the address of its number, until `control` is closed.

    A message is one byte, the number, with one descriptor. Whatever is none is dropped.
    """
    while True:
        message, handed, _, _ = socket.recv_fds(control, CHUNK, 16)
        if not message and not handed:
            return
        if len(handed) == len(message) == 1 and message[0] < len(addresses):
            arguments = (handed[0], addresses[message[0]])
            threading.Thread(target=_carry, args=arguments, daemon=True).start()
            continue
        log.error("worker_network: a message that hands no connection over was dropped")
        for descriptor in handed:
            os.close(descriptor)


def _carry(descriptor: int, address: Address) -> None:
    try:
        near = socket.socket(fileno=descriptor)
    except OSError:  # no socket
        os.close(descriptor)
        return
    with near:
        try:
            far = socket.create_connection(address, CONNECT_TIMEOUT_S)
        except OSError as error:  # closing resets the worker's connection
            log.warning("worker_network: %s:%d cannot be reached (%s)", *address, error.strerror or error)
            return
        broken = threading.Event()
        with far, contextlib.suppress(OSError):
            far.settimeout(None)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_RESET)
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(far, near, broken), daemon=True)
            back.start()
            _pump(near, far, broken)
            back.join()


def _pump(source: socket.socket, sink: socket.socket, broken: threading.Event) -> None:
    """Carry one direction to its end, and pass the end on; or, where a connection breaks, break both."""
    try:
        while data := source.recv(CHUNK):
            sink.sendall(data)
        if not broken.is_set():
            sink.shutdown(socket.SHUT_WR)
    except OSError:
        broken.set()
        for end in (source, sink):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # wakes the other direction, and tells the peer nothing yet


def main(arguments: list[str]) -> int:
    """`DESCRIPTOR HOST:PORT...`: serve until the worker ends."""
    die_with_parent()
    guard_lines()
    with socket.socket(fileno=int(arguments[0])) as control:
        serve(control, [split_address(address) for address in arguments[1:]])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A small hospital proxy for tests: CONNECT only, with or without a password, which can be cut like a cable."""

import base64
import contextlib
import select
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Self


class Proxy:
    """Listens on loopback until closed. While `cut`, nothing passes and nothing is answered, as on a dead line."""

    def __init__(self, account: str | None = None, forbid: bool = False) -> None:
        self._account, self._forbid = account, forbid
        self.cut = threading.Event()
        self._over = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.asked: list[str] = []
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.close()
        for thread in self._threads:
            thread.join(5)

    def _spawn(self, target, *arguments) -> None:  # type: ignore[no-untyped-def]
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        self._server.settimeout(0.2)
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._server.accept()
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(1)
                if not piece:
                    return
                head += piece
            while self.cut.is_set() and not self._over.wait(0.1):
                pass
            lines = head.decode().split("\r\n")
            target = lines[0].split()[1]
            self.asked.append(target)
            given = next((line.split()[-1] for line in lines if line.lower().startswith("proxy-authorization")), "")
            if self._account and base64.b64decode(given).decode() != self._account:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            if self._forbid:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            host, port = target.rsplit(":", 1)
            with socket.create_connection((host, int(port)), timeout=10) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._pass(client, server)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        client.settimeout(None)
        server.settimeout(None)
        other = {client: server, server: client}
        while not self._over.is_set():
            if self.cut.is_set():
                self._over.wait(0.05)
                continue
            ready, _, _ = select.select([client, server], [], [], 0.1)
            if self.cut.is_set():
                continue
            for end in ready:
                data = end.recv(65536)
                if not data:
                    return
                other[end].sendall(data)


class OpeningProxy(Proxy):
    """One that opens TLS: it shows a certificate of its own, and reads what passes. No client certificate arrives."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._inside.load_cert_chain(certificate, key)
        self._outside = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._outside.check_hostname, self._outside.verify_mode = False, ssl.CERT_NONE
        self.read = b""
        super().__init__()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        with (
            self._inside.wrap_socket(client, server_side=True) as near,
            self._outside.wrap_socket(server) as far,
        ):
            other = {near: far, far: near}
            while not self._over.is_set():
                ready = [end for end in (near, far) if end.pending()] or select.select([near, far], [], [], 0.1)[0]
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    self.read = (self.read + data)[-100_000:]
                    other[end].sendall(data)


class FaultyWire:
    """A wire to a port of this machine that fails once a connection has carried so many bytes in one direction.

    `how`: reset (as an antivirus does), close, or silent (nothing passes any more, nothing is ended).
    """

    def __init__(self, port: int, how: str, after: int, towards: str = "both") -> None:
        self._target, self._how, self._after, self._towards = port, how, after, towards
        self._over = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.2)
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> "FaultyWire":
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(5)
        self._server.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                near, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._pass, args=(near,), daemon=True))
                self._threads[-1].start()

    def _pass(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far, contextlib.suppress(OSError):
            other, passed = {near: far, far: near}, {near: 0, far: 0}
            while not self._over.is_set():
                for end in select.select([near, far], [], [], 0.1)[0]:
                    data = end.recv(1000)
                    passed[end] += len(data)
                    counts = self._towards == "both" or (self._towards == "up") == (end is near)
                    if counts and passed[end] > self._after:
                        if self._how == "silent":
                            self._over.wait(60)
                        if self._how == "reset":
                            for one in (near, far):
                                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                    if not data:
                        return
                    other[end].sendall(data)

"""Connections that read all bytes that have arrived, not one TLS record (16 KB) at a time.

They need a tenth of the steps. It wraps what flower.py connects with (httpcore's network backend and streams), and
connects nothing itself.
"""

import contextlib
from collections.abc import Iterable
from typing import Any

RECORD_BYTES = 1 << 14  # of TLS at most; a sender of a whole one is likely to have sent more
AT_ONCE = 1 << 18


class Bulk:
    """Another backend's connections, read in bulk once they are under TLS."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> "Stream":
        """Connect."""
        return Stream(self._backend.connect_tcp(host, port, timeout, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._backend.sleep(seconds)


class Stream:
    """One connection."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._room = stream, bytearray()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return what has come, nothing at the end; it may be more than `max_bytes`, which httpcore accepts."""
        first: bytes = self._stream.read(max_bytes, timeout)
        tls = self._stream.get_extra_info("socket")
        if len(first) < RECORD_BYTES or tls is None or self._stream.get_extra_info("ssl_object") is None:
            return first
        if not self._room:
            self._room = bytearray(AT_ONCE)
        room = memoryview(self._room)
        room[: len(first)], end = first, len(first)
        tls.settimeout(0.0)
        with contextlib.suppress(OSError):  # nothing more is there yet; what is wrong comes again with the next read
            while end < AT_ONCE and (count := tls.recv_into(room[end:])):
                end += count
        return bytes(room[:end])

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send."""
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> "Stream":
        """Go on under TLS."""
        return Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Return what the stream knows."""
        return self._stream.get_extra_info(info)

"""The node's connection to the coordinator, tried step by step for `archipel-site check`.

Its results are plain facts. It speaks through raw sockets, so that each step has its own answer. Nothing of it is in
the node's own way.
"""

import contextlib
import email.utils
import re
import socket
import ssl
import time
from dataclasses import dataclass

from cryptography import x509

from client.uplink.carriage import REQUESTS, goes_on, heavy, is_whole
from client.uplink.proxy import Proxy, proxy_to, tunnel
from configs.folder import split_address
from configs.shown import printable

_RELEASE = re.compile(
    rb"\r\n\r\nok, archipel ([0-9a-z.+]{1,20}) with flwr ([0-9a-z.+]{1,20})$"
)  # the health path says it
NOT_ADMITTED = "this key is not admitted, or no longer"  # what the gateway answers to a revoked hospital


@dataclass(frozen=True)
class Reach:
    """The steps that a connection to the coordinator passed.

    `step` is where it stopped: resolve, refused, silent, proxy (its answer is in `code`), tls, certificate, client,
    health; or arrived. `issuer` is who signed the certificate that was shown, `clock_s` how far this machine's clock is
    ahead of the coordinator's, `release` which Archipel and Flower run there.
    """

    step: str
    where: str
    proxy: str = ""
    code: int = 0
    detail: str = ""
    issuer: str = ""
    clock_s: float | None = None
    release: tuple[str, str] | None = None


def reach(address: str, context: ssl.SSLContext, timeout_s: float = 5.0) -> Reach:
    """Connect as the node does, through the proxy that the environment names, and ask for the health path.

    Raises:
        RunError: the environment names a proxy that is none.
    """
    host, port = split_address(address)
    proxy = proxy_to(host, port)
    through = str(proxy) if proxy else ""
    first = (proxy.host, proxy.port) if proxy else (host, port)
    where = f"{first[0]}:{first[1]}"
    try:
        socket.getaddrinfo(*first, type=socket.SOCK_STREAM)
    except OSError:
        return Reach("resolve", first[0], through)
    try:
        with socket.create_connection(first, timeout=timeout_s) as plain:
            if proxy and (code := tunnel(plain, f"{host}:{port}", proxy)) != 200:
                return Reach("proxy", where, through, code)
            return _greet(plain, (host, port), proxy, context, timeout_s)
    except TimeoutError:
        return Reach("silent", where, through)
    except ConnectionRefusedError:
        return Reach("refused", where, through)
    except OSError as error:
        return Reach("silent", where, through, detail=str(error.strerror or type(error).__name__))


def cut_after(address: str, context: ssl.SSLContext, timeout_s: float = 5.0) -> tuple[int, str] | None:
    """Ask for the health path again and again over one connection, as the node goes through the hospital's proxy.

    Returns:
        After how many bytes, both ways together, it was "cut" or fell "silent"; None where it did neither.

    Raises:
        RunError: the environment names a proxy that is none. OSError: there is no connection to begin with.
    """
    host, port = split_address(address)
    proxy, request, passed = proxy_to(host, port), heavy(host), 0
    with socket.create_connection((proxy.host, proxy.port) if proxy else (host, port), timeout=timeout_s) as plain:
        if proxy and tunnel(plain, f"{host}:{port}", proxy) != 200:
            return None  # what keeps it from there is told elsewhere
        try:
            with context.wrap_socket(plain, server_hostname=host) as tls:
                for _ in range(REQUESTS):
                    tls.sendall(request)
                    answer = b""
                    while not is_whole(answer) and len(answer) < 8192 and (piece := tls.recv(4096)):
                        answer += piece
                    passed += len(request) + len(answer)
                    if not is_whole(answer):  # Python's TLS tells an end and a reset alike
                        return passed, "cut"
                    if not goes_on(answer):
                        return None
        except TimeoutError:
            return passed, "silent"
        except OSError:
            return passed, "cut"
    return None


def _greet(
    plain: socket.socket,
    coordinator: tuple[str, int],
    proxy: Proxy | None,
    context: ssl.SSLContext,
    timeout_s: float,
) -> Reach:
    """Shake hands over TLS, and ask for the health path."""
    host, where, through = coordinator[0], f"{coordinator[0]}:{coordinator[1]}", str(proxy) if proxy else ""
    trusted = False  # from then on it is the coordinator: a connection that ends was refused for our certificate
    try:
        with context.wrap_socket(plain, server_hostname=host) as tls:
            trusted = True
            tls.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while len(answer) < 8192 and (piece := tls.recv(4096)):
                answer += piece
    except ssl.SSLCertVerificationError as error:
        issuer = _issuer(coordinator, proxy, timeout_s)
        return Reach("certificate", where, through, error.verify_code, str(error.verify_message), issuer)
    except ssl.SSLError as error:
        step = "client" if trusted or "ALERT" in str(error.reason or "") else "tls"
        return Reach(step, where, through, detail=str(error.reason or "no TLS"))
    except (ConnectionResetError, BrokenPipeError):
        return Reach("client" if trusted else "tls", where, through, detail="the connection was cut")
    if not answer:
        return Reach("client", where, through, detail="the connection was closed without an answer")
    return _read_health(answer, where, through)


def _read_health(answer: bytes, where: str, through: str) -> Reach:
    """Read what the health path answered."""
    head = answer.split(b"\r\n\r\n", 1)[0].decode("latin-1").splitlines()
    status = head[0].split() if head else []
    code = int(status[1]) if len(status) > 1 and status[1].isdigit() else 0
    clock = _clock_s(head)
    if code == 403 and NOT_ADMITTED.encode() in answer:
        return Reach("client", where, through, code, NOT_ADMITTED, clock_s=clock)
    match = _RELEASE.search(answer)
    release = (match[1].decode("ascii"), match[2].decode("ascii")) if match else None
    return Reach("arrived" if code == 200 else "health", where, through, code, clock_s=clock, release=release)


def _clock_s(head: list[str]) -> float | None:
    """Return how far this machine's clock is ahead of the Date header, None where there is none."""
    dates = [line.partition(":")[2].strip() for line in head if line.lower().startswith("date:")]
    with contextlib.suppress(ValueError, IndexError):
        return time.time() - email.utils.parsedate_to_datetime(dates[0]).timestamp()
    return None


def _issuer(coordinator: tuple[str, int], proxy: Proxy | None, timeout_s: float) -> str:
    """Return the issuer of the certificate that is shown; nothing is sent over the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    first = (proxy.host, proxy.port) if proxy else coordinator
    try:
        with socket.create_connection(first, timeout=timeout_s) as plain:
            if proxy:
                tunnel(plain, f"{coordinator[0]}:{coordinator[1]}", proxy)
            with context.wrap_socket(plain, server_hostname=coordinator[0]) as tls:
                shown = tls.getpeercert(binary_form=True)
    except OSError:
        return ""
    if not shown:
        return ""
    try:
        name = x509.load_der_x509_certificate(shown).issuer.rfc4514_string()
    except ValueError:
        return ""
    return printable(name, 120)

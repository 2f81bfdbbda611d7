"""The same door, kept by a real nginx: the attacks of test_gateway.py that concern who comes in and what is asked."""

import contextlib
import os
import pwd
import shutil
import ssl
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.uplink.reach import NOT_ADMITTED
from configs.coordinator import CoordinatorConfig, load_coordinator
from configs.errors import ConfigError
from server.gateway.strict_http import make_server
from server.membership import Member, Membership
from server.nginx import nginx_config
from server.signatures import with_signed_bodies
from server.sockets import AUTH_SOCKET, SUPERLINK_SOCKET
from tests.debian import install
from tests.server.test_gateway import (
    AMBIGUOUS,
    INSIDE,
    PULL,
    PUSH,
    RELEASE,
    Behind,
    Consortium,
    Door,
    Hospital,
    await_listener,
    eventually,
    free_port,
    head,
    lines,
    make_consortium,
    process,
    running,
    status,
    talk,
)
from tests.server.test_signed_requests import made

FOLDED = {"a folded header", "a folded encoding", "a bare line feed"}  # nginx reads them in its own way: see below


@pytest.fixture(scope="session")
def nginx() -> str:
    """The program; installed where that is possible, without its service."""
    if shutil.which("nginx") is None:
        install("nginx-light")
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip("nginx is not installed, and cannot be: apt-get install nginx-light")
    return found


class Front:
    """nginx before a double of the SuperLink, its questions answered by the real authority."""

    def __init__(self, door: Door, members: Membership) -> None:
        self.door, self.members = door, members

    def admit(self, hospital: Hospital, *, without_certificate: bool = False) -> None:
        expires = "2099-01-01T00:00:00+00:00"
        name = hospital.name
        self.members.admit(Member(name, hospital.public_key, name, expires, without_certificate=without_certificate))


@contextlib.contextmanager
def fronted(
    program: str, folder: Path, *, certificate_required: bool = True, rate: int = 1000, without: str = "nothing"
) -> Iterator[Front]:
    consortium, port = make_consortium(folder), free_port()
    (folder / "coordinator.yaml").write_text(
        f"name: Test\nnames: [127.0.0.1]\nlisten: 127.0.0.1:{port}\nmax_request_mb: 6\nrequests_per_second: {rate}\n"
    )
    config = load_coordinator(folder)
    written = nginx_config(config, certificate_required=certificate_required)
    (folder / "nginx.conf").write_text("\n".join(line for line in written.splitlines() if without not in line))
    config.sockets.mkdir(mode=0o700)
    behind, log = Behind(), folder / "log"
    with contextlib.ExitStack() as stack:
        members = Membership.open(config.database)
        stack.callback(members.close)
        front = Front(Door(consortium, behind, port, None, None), members)
        for name in ("lille", "lyon"):
            front.admit(consortium.hospital(name))
        stack.enter_context(running(make_server(with_signed_bodies(behind), config.sockets / SUPERLINK_SOCKET)))
        auth = stack.enter_context(process("server.gateway", str(folder), "--auth-only", log=folder / "auth.log"))
        await_listener(config.sockets / AUTH_SOCKET, auth, folder / "auth.log")
        stack.enter_context(unprivileged(program, config, log))
        yield front
        assert b"[emerg]" not in log.read_bytes()


@contextlib.contextmanager
def unprivileged(program: str, config: CoordinatorConfig, log: Path) -> Iterator[None]:
    """nginx as whoever runs the tests, or, where that is root, as nobody: everything it needs is nobody's then."""
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if nobody is not None:
        for path in (config.folder, *config.folder.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    command = [program, "-e", "stderr", "-c", "nginx.conf", "-p", str(config.folder)]
    as_whom: dict[str, Any] = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []} if nobody else {}
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, **as_whom) as child:
        try:
            await_listener(int(config.listen.rpartition(":")[2]), child, log)
            yield
        finally:
            child.terminate()
            child.wait(10)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Below /tmp itself: pytest's own folder is closed to nobody."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made).resolve()


@pytest.fixture(scope="module")
def shared_front(nginx: str, folder: Path) -> Iterator[Front]:
    with fronted(nginx, folder) as front:
        yield front


@pytest.fixture
def front(shared_front: Front) -> Front:
    shared_front.door.behind.__dict__.update(Behind().__dict__)
    return shared_front


@pytest.fixture
def door(front: Front) -> Door:
    return front.door


@pytest.fixture
def consortium(front: Front) -> Consortium:
    return front.door.consortium


@pytest.fixture
def lille(consortium: Consortium) -> Hospital:
    return consortium.hospital("lille")


@pytest.fixture
def lyon(consortium: Consortium) -> Hospital:
    return consortium.hospital("lyon")


def test_an_admitted_hospital_is_answered_through_nginx(door: Door, lille: Hospital) -> None:
    answer = door.post(lille, body=b"abc")
    assert answer is not None
    assert (answer.status, answer.body) == (200, door.behind.answer)
    assert "date" in answer.headers
    assert not {"set-cookie", "x-powered-by"} & set(answer.headers)
    [(request, headers)] = door.behind.requests
    expected = {"host", "content-type", "accept", "content-length", "flwr-public-key", "flwr-signature"}
    assert (request, set(headers)) == (f"POST {PULL}", expected | {"flwr-timestamp"})


def test_only_the_headers_that_flower_needs_pass_nginx(door: Door, lille: Hospital) -> None:
    extra = ["User-Agent: x", "X-Forwarded-For: 1.2.3.4", "flwr-task-token: t", "X-Client-Verify: x", "Cookie: a=b"]
    assert status(door.ask(lille, head(f"POST {PULL} HTTP/1.1", *lines(lille), *extra, "Content-Length: 0"))) == 200
    [(_, headers)] = door.behind.requests
    assert not {"user-agent", "x-forwarded-for", "flwr-task-token", "x-client-verify", "cookie"} & set(headers)


def test_the_health_path_of_nginx_says_which_release_runs(door: Door, lille: Hospital) -> None:
    answer = door.ask(lille, head("GET /health HTTP/1.1"))
    assert answer is not None
    assert (answer.status, answer.body) == (200, RELEASE)


def test_the_health_path_of_nginx_says_no_to_a_certificate_that_is_not_admitted(
    door: Door, consortium: Consortium
) -> None:
    answer = door.ask(consortium.hospital("nantes"), head("GET /health HTTP/1.1"))
    assert answer is not None
    assert (answer.status, answer.body.startswith(NOT_ADMITTED.encode())) == (403, True)


def test_nginx_lets_nobody_in_without_a_certificate_that_holds(
    door: Door, consortium: Consortium, lille: Hospital, tmp_path: Path
) -> None:
    stranger = make_consortium(tmp_path).hospital("lille")
    asked = head(f"POST {PULL} HTTP/1.1", *lines(lille), "Content-Length: 0")
    for posing in (None, stranger, consortium.expired(lille)):
        assert status(door.ask(posing, asked)) in (0, 403)
        assert status(door.ask(posing, head("GET /health HTTP/1.1"))) in (0, 403)
    assert door.behind.requests == []


def test_nginx_refuses_tls_1_2(door: Door, lille: Hospital) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol"):
            door.connect(lille, maximum_version=ssl.TLSVersion.TLSv1_2)


def test_nginx_refuses_anothers_key_and_whoever_is_not_admitted(
    door: Door, consortium: Consortium, lille: Hospital, lyon: Hospital
) -> None:
    assert status(door.post(lille, as_whom=lyon)) == 403
    assert status(door.post(consortium.hospital("nantes"))) == 403
    assert status(door.ask(lille, head(f"POST {PULL} HTTP/1.1", "Content-Length: 0"))) == 403
    assert door.behind.requests == []


def test_a_hospital_cannot_tell_nginxs_authority_who_it_is(door: Door, consortium: Consortium, lille: Hospital) -> None:
    escaped = lille.certificate.read_text().replace("\n", "%0A").replace(" ", "%20")
    forged = ["X-Client-Verify: SUCCESS", f"X-Client-Certificate: {escaped}"]
    asked = head(f"POST {PULL} HTTP/1.1", *lines(lille), *forged, "Content-Length: 0")
    assert status(door.ask(consortium.hospital("nantes"), asked)) == 403
    assert status(door.ask(lille, head("GET /archipel-auth HTTP/1.1"))) == 404


def test_a_revocation_holds_on_an_open_connection_of_nginx(front: Front, consortium: Consortium) -> None:
    nice = consortium.hospital("nice")
    front.admit(nice)
    request = head(f"POST {PULL} HTTP/1.1", *lines(nice), "Content-Length: 0")
    with front.door.connect(nice) as connection:
        assert status(talk(connection, request)) == 200
        front.members.revoke("nice")
        assert status(talk(connection, request)) == 403


@pytest.mark.parametrize("target", INSIDE)
def test_nothing_but_the_listed_paths_exists_in_nginx(door: Door, lille: Hospital, target: str) -> None:
    answer = door.ask(lille, head(f"POST {target} HTTP/1.1", *lines(lille), "Content-Length: 0"))
    assert status(answer) in (400, 404)
    assert door.behind.requests == []


@pytest.mark.parametrize("line", [f"GET {PULL}", f"PUT {PULL}", "POST /health", "GET /health?a", "OPTIONS *"])
def test_no_other_method_exists_in_nginx(door: Door, lille: Hospital, line: str) -> None:
    answer = door.ask(lille, head(f"{line} HTTP/1.1", *lines(lille), "Content-Length: 0"))
    assert status(answer) in (400, 404, 405)
    assert door.behind.requests == []


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_nothing_is_smuggled_through_nginx(door: Door, lille: Hospital, kind: str) -> None:
    """Refused, or forwarded as one request with one reading: what follows never reaches the SuperLink unseen."""
    request = head(f"POST {PULL} HTTP/1.1", *lines(lille), *AMBIGUOUS[kind])
    smuggled = head("POST /v1/control/start-run HTTP/1.1", "Content-Length: 0")
    answer = door.ask(lille, request + b"0\r\n\r\n" + smuggled)
    forwarded = [request for request, _ in door.behind.requests]
    assert forwarded in ([], [f"POST {PULL}"])
    if kind not in FOLDED and not kind.startswith("two "):
        assert status(answer) in (400, 501)
        assert forwarded == []
    for _, headers in door.behind.requests:
        assert not {"content-length", "transfer-encoding"} <= set(headers)
        assert headers["flwr-public-key"] == lille.headers()["flwr-public-key"]


def test_nginx_bounds_a_body(door: Door, lille: Hospital) -> None:
    assert status(door.post(lille, PUSH, bytes(6_000_001))) == 413
    chunks = (b"10000\r\n" + bytes(0x10000) + b"\r\n") * 100
    asked = head(f"POST {PUSH} HTTP/1.1", *lines(lille), "Transfer-Encoding: chunked") + chunks
    assert status(door.ask(lille, asked)) in (0, 413)
    assert eventually(lambda: door.behind.broken == 1)
    assert door.behind.received <= 6_000_000
    door.behind.received = 0
    assert status(door.post(lille, PUSH, bytes(6_000_000))) == 200
    assert door.behind.received == 6_000_000


def test_a_large_answer_passes_nginx_whole(door: Door, lille: Hospital) -> None:
    door.behind.pieces = 20
    answer = door.post(lille)
    assert answer is not None
    assert len(answer.body) == 20_000_000


def test_nginx_bounds_each_hospitals_rate_and_lets_the_one_exception_in(nginx: str) -> None:
    with (
        tempfile.TemporaryDirectory() as made,
        fronted(nginx, Path(made).resolve(), certificate_required=False, rate=2) as front,
    ):
        door, metz = front.door, front.door.consortium.hospital("metz")
        front.admit(metz, without_certificate=True)
        lille, lyon = (door.consortium.hospital(name) for name in ("lille", "lyon"))
        asked = {h.name: head(f"POST {PULL} HTTP/1.1", *lines(h), "Content-Length: 0") for h in (lille, metz)}
        assert [status(door.ask(None, asked[name])) for name in ("metz", "lille")] == [200, 403]
        assert status(door.post(lille, as_whom=metz)) == 403
        answers = [status(door.post(lille)) for _ in range(9)]
        assert set(answers) == {200, 429}
        assert status(door.post(lyon)) == 200
        time.sleep(0.6)
        assert eventually(lambda: status(door.post(lille)) == 200)


def test_behind_nginx_too_a_request_without_a_certificate_is_served_once_and_as_it_was_signed(nginx: str) -> None:
    with tempfile.TemporaryDirectory() as folder, fronted(nginx, Path(folder), certificate_required=False) as front:
        door, metz = front.door, front.door.consortium.hospital("metz")
        front.admit(metz, without_certificate=True)
        assert eventually(lambda: made(metz).sent(door) == 200, 20)  # not before the authority has run for a while
        door.behind.requests.clear()
        first, other, stripped = made(metz), made(metz), made(metz).without("archipel-request")
        assert [first.sent(door), first.sent(door)] == [200, 502]
        assert len(door.behind.requests) == 1
        for attack in (replace(other, path=PUSH), replace(other, body=b"evil"), stripped, made(metz, off_s=100)):
            assert attack.sent(door) in (401, 403)
        assert len(door.behind.requests) == 1
        assert made(metz).sent(door) == 200


def test_an_nginx_conf_of_an_older_release_serves_as_before_and_is_told(nginx: str) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        fronted(nginx, Path(folder), certificate_required=False, without="x-requested-path") as front,
    ):
        metz = front.door.consortium.hospital("metz")
        front.admit(metz, without_certificate=True)
        front.members.set_signs("metz")
        assert made(metz).sent(front.door) == 200
        log = (Path(folder) / "auth.log").read_text()
        assert "nginx.conf is of an older release" in log
        assert "start --print-nginx" in log


def test_nginx_says_when_the_authority_or_the_superlink_is_away(nginx: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        with fronted(nginx, folder) as front:
            lille = front.door.consortium.hospital("lille")
            (folder / "sockets" / AUTH_SOCKET).rename(folder / "sockets" / "away")
            assert status(front.door.post(lille)) in (502, 503)
            assert front.door.behind.requests == []
            (folder / "sockets" / "away").rename(folder / "sockets" / AUTH_SOCKET)
            (folder / "sockets" / SUPERLINK_SOCKET).rename(folder / "sockets" / "away")
            assert status(front.door.post(lille)) in (502, 503)


def test_a_folder_that_nginx_would_misread_is_refused() -> None:
    with pytest.raises(ConfigError, match="move the folder"):
        nginx_config(CoordinatorConfig(Path("/srv/a; include /etc/passwd"), "Test", ("localhost",)))

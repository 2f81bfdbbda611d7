"""A worker without network reaches the data bases that are listed, and nothing else: real processes and namespaces."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client.worker_process import WorkerProcess
from tests.consortium import Consortium

ROOT = Path(__file__).resolve().parents[2]
START = """
import os, socket, sys, threading
from client import forwarder
def said(attempt):
    try:
        return attempt()
    except OSError as error:
        return type(error).__name__ + (f" {error.errno}" if error.errno else "")
def asked(address, what=b"?"):
    with socket.create_connection(address, 60) as connection:
        connection.sendall(what)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))
"""
LEFT = START + "assert forwarder.leave_network_but(sys.argv[1:])\n"
Handler = Callable[[socket.socket], None]


def inside(code: str, *addresses: str, start: str = LEFT, timeout: float = 120) -> list[str]:
    """What a process prints, a line each, once it has left the network but for these addresses."""
    command = [sys.executable, "-c", start + code, *addresses]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def namespaces() -> None:
    code = "import sys; from client.forwarder import leave_network_but; sys.exit(not leave_network_but(['a.test:1']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        pytest.skip(f"the kernel gives this user no network namespace with a loopback of its own: {done.stderr[-200:]}")


@contextlib.contextmanager
def server(handle: Handler, host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A server in the host's network; its port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handled, args=(connection,), daemon=True).start()

    def handled(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            handle(connection)

    with socket.create_server((host, port)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    """Send back what comes, and three letters more once the other side has said its last."""
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.sendall(b"END")


def named(name: bytes) -> Handler:
    def answers(connection: socket.socket) -> None:
        connection.recv(10)
        connection.sendall(name)

    return answers


def eventually(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return False


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# What a worker reaches


@pytest.mark.usefixtures("namespaces")
def test_a_listed_server_is_reached_by_its_listed_name_and_by_the_address_that_reach_returns() -> None:
    with server(echo) as port:
        code = f"print(asked(('localhost', {port})), asked(('LOCALHOST', '{port}')))\n"
        code += f"print(asked(forwarder.reach('localhost:{port}')))"
        assert inside(code, f"localhost:{port}") == ["b'?END' b'?END'", "b'?END'"]


@pytest.mark.usefixtures("namespaces")
def test_megabytes_arrive_intact_in_both_directions_and_past_a_half_close() -> None:
    code = """
data = os.urandom(8_000_000)
with socket.create_connection(forwarder.reach(sys.argv[1]), 20) as connection:
    def write():
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    threading.Thread(target=write).start()
    back = b"".join(iter(lambda: connection.recv(65536), b""))
print(len(back), back == data + b"END")
"""
    with server(echo) as port:
        assert inside(code, f"127.0.0.1:{port}") == ["8000003 True"]


@pytest.mark.usefixtures("namespaces")
def test_what_is_not_listed_is_not_reached() -> None:
    heard: list[bytes] = []
    with server(echo) as listed, server(lambda connection: heard.append(b"!")) as unlisted:
        code = f"""
for address in (("127.0.0.1", {unlisted}), ("localhost", {unlisted}), ("192.0.2.1", 80), ("example.org", 443)):
    print(said(lambda: asked(address)))
print(said(lambda: socket.socket().connect(("127.0.0.2", {listed}))))
print(sorted(name for _, name in socket.if_nameindex()))
try:
    forwarder.reach("127.0.0.1:{unlisted}")
except Exception as error:
    print(type(error).__name__, error)
"""
        lines = inside(code, f"127.0.0.1:{listed}")
    refused, unreachable = "ConnectionRefusedError 111", "OSError 101"
    assert lines[:3] == [refused, refused, unreachable]
    assert lines[3].startswith("gaierror")
    assert lines[4] == refused
    assert "lo" in lines[5]
    assert lines[6] == (
        f"SourceError expected an address that site.yaml lists, found 127.0.0.1:{unlisted}; add it to worker_network"
    )
    assert heard == []


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("second", ["127.2", "127.0.0.2"])  # a name, which the worker must not resolve, and an address
def test_two_listed_hosts_may_have_one_port(second: str) -> None:
    with server(named(b"one")) as port, server(named(b"two"), "127.0.0.2", port):
        addresses = (f"{second}:{port}", f"localhost:{port}")
        code = f"print(asked(('{second}', {port})), asked(('localhost', {port})), asked(('LOCALHOST', '{port}')))\n"
        code += "print(*(asked(forwarder.reach(address)) for address in sys.argv[1:]))"
        assert inside(code, *addresses) == ["b'two' b'one' b'one'", "b'two' b'one'"]


@pytest.mark.usefixtures("namespaces")
def test_a_listed_server_that_is_down_is_an_error_at_once_and_is_reached_once_it_is_up() -> None:
    with server(echo) as port:
        pass
    code = """
way = forwarder.reach(sys.argv[1])
print(said(lambda: asked(way)), flush=True)
sys.stdin.readline()
print(asked(way))
"""
    command = [sys.executable, "-c", LEFT + code, f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        error = process.stdout.readline().strip()
        with server(echo, port=port):
            assert process.communicate("up\n", timeout=120)[0].strip() == "b'?END'"
    assert error in ("ConnectionResetError 104", "BrokenPipeError 32")


@pytest.mark.usefixtures("namespaces")
def test_a_connection_that_the_server_breaks_breaks_for_the_worker_too_instead_of_ending_well() -> None:
    def breaks(connection: socket.socket) -> None:
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with server(breaks) as port:
        code = """
with socket.create_connection(forwarder.reach(sys.argv[1]), 10) as connection:
    connection.sendall(b"?")
    print(said(lambda: connection.recv(10)))
"""
        assert inside(code, f"127.0.0.1:{port}") == ["ConnectionResetError 104"]


@pytest.mark.usefixtures("namespaces")
def test_a_forwarder_that_has_ended_is_an_error_at_once() -> None:
    code = """
forwarder._forwarder[0].kill()
forwarder._forwarder[0].wait()
print(said(lambda: asked(forwarder.reach(sys.argv[1]))))
"""
    with server(echo) as port:
        ended = inside(code, f"127.0.0.1:{port}")[0]  # by how far the kernel had got: reset, broken, not connected
        assert ended in ("ConnectionResetError 104", "BrokenPipeError 32", "OSError 107")


@pytest.mark.usefixtures("namespaces")
def test_the_forwarder_and_its_connections_end_when_the_worker_is_killed() -> None:
    ended = threading.Event()

    def waits(connection: socket.socket) -> None:
        connection.sendall(b"ready")
        with contextlib.suppress(OSError):
            connection.recv(1)
        ended.set()

    code = """
connection = socket.create_connection(forwarder.reach(sys.argv[1]), 10)
connection.recv(5)
print(forwarder._forwarder[0].pid, flush=True)
sys.stdin.read()
"""
    with server(waits) as port:
        command = [sys.executable, "-c", LEFT + code, f"127.0.0.1:{port}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            assert runs(pid)
            assert not ended.is_set()
            process.send_signal(signal.SIGKILL)
            assert eventually(lambda: not runs(pid))
            assert ended.wait(10)


def test_where_the_kernel_gives_no_namespace_the_network_stays_and_no_forwarder_runs() -> None:
    code = """
forwarder.leave_network = lambda: False
started = forwarder._start
def start(addresses):
    control = started(addresses)
    print(forwarder._forwarder[0].poll())
    pid.append(forwarder._forwarder[0].pid)
    return control
pid, forwarder._start = [], start
print(forwarder.leave_network_but(sys.argv[1:]), forwarder._forwarder, os.path.exists(f"/proc/{pid[0]}"))
print(forwarder.reach(sys.argv[1]))
"""
    assert inside(code, "db.test:5432", start=START) == ["None", "False [] False", "('db.test', 5432)"]


def test_a_kernel_that_allows_no_loopback_is_said_instead_of_a_worker_that_reaches_nothing() -> None:
    code = """
forwarder.leave_network = lambda: True
def refused():
    raise PermissionError(1, "Operation not permitted")
forwarder._bring_up_loopback = refused
try:
    forwarder.leave_network_but(sys.argv[1:])
except forwarder.RunError as error:
    print(error)
"""
    (line,) = inside(code, "db.test:5432", start=START)
    assert "use no loopback of its own (Operation not permitted)" in line


# What the forwarder does for a worker that means ill


@pytest.fixture
def forwarder() -> Iterator[Callable[..., socket.socket]]:
    """Starts a forwarder for these addresses; our end of its pair of sockets."""
    with contextlib.ExitStack() as stack:

        def start(*addresses: str) -> socket.socket:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-m", "client.forwarder", str(theirs.fileno()), *addresses]
                process = stack.enter_context(subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT))
            stack.callback(process.wait, 10)
            stack.callback(ours.close)  # it ends when nobody can ask it any more
            return ours

        yield start


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection: the end to talk with, and the end to hand over."""
    address = ("127.0.0.1", 0)
    with socket.create_server(address) as listener, socket.create_connection(listener.getsockname(), 10) as ours:
        yield ours, listener.accept()[0]


def test_a_number_past_the_list_and_garbage_reach_nothing_and_harm_nothing(
    forwarder: Callable[..., socket.socket],
) -> None:
    came: list[int] = []

    def answers(connection: socket.socket) -> None:
        came.append(1)
        connection.sendall(b"yes")

    with server(answers) as port, contextlib.ExitStack() as stack:
        control = forwarder(f"127.0.0.1:{port}")

        def handed(message: bytes, count: int = 1) -> list[socket.socket]:
            pairs = [stack.enter_context(connection()) for _ in range(count)]
            socket.send_fds(control, [message], [theirs.fileno() for _, theirs in pairs])
            for _, theirs in pairs:
                theirs.close()
            return [ours for ours, _ in pairs]

        dropped = [*handed(b"\x01"), *handed(b"\xff"), *handed(b"127.0.0.1:80"), *handed(b"\x00", 2)]
        control.send(b"\x00")
        control.send(os.urandom(5000))
        for path in (os.devnull, __file__):  # no sockets
            with open(path, "rb") as file:
                socket.send_fds(control, [b"\x00"], [file.fileno()])
        assert [ours.recv(10) for ours in dropped] == [b""] * 5
        assert came == []
        (ours,) = handed(b"\x00")
        assert ours.recv(10) == b"yes"
        assert came == [1]


def test_the_forwarder_ends_when_its_pair_of_sockets_is_closed(forwarder: Callable[..., socket.socket]) -> None:
    forwarder("127.0.0.1:1").close()  # the fixture waits for its end


# The worker itself


@pytest.mark.usefixtures("namespaces")
def test_the_worker_leaves_the_network_and_its_forwarder_stays_and_holds_nothing_of_the_worker(tmp_path: Path) -> None:
    config = Consortium(tmp_path / "consortium").hospital("lille", worker_network=["127.0.0.1:5432", "db.test:5432"])
    worker, host = WorkerProcess(config), os.readlink("/proc/self/ns/net")
    try:
        worker.start()
        assert worker.alone
        children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
        assert len(children) == 1
        assert os.readlink(f"/proc/{worker.pid}/ns/net") != host
        assert os.readlink(f"/proc/{children[0]}/ns/net") == host
        held = {name.name: os.readlink(name) for name in Path(f"/proc/{children[0]}/fd").iterdir()}
        assert (held.pop("0"), held.pop("1")) == (os.devnull, os.devnull)
        held.pop("2")  # where it says what it cannot reach
        assert [target.partition(":")[0] for target in held.values()] == ["socket"]
    finally:
        worker.stop()
    assert eventually(lambda: not runs(int(children[0])))


@pytest.mark.usefixtures("namespaces")
def test_a_worker_with_nothing_listed_has_no_forwarder_and_not_even_a_loopback() -> None:
    with server(echo) as port:
        code = f"print(forwarder._forwarder, said(lambda: asked(('127.0.0.1', {port}))))"
        assert inside(code) == ["[] OSError 101"]

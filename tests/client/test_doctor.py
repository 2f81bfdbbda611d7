"""`archipel-site check` at hospitals where something is wrong: it names what, who must mend it, and how."""

import contextlib
import datetime
import email.utils
import http.server
import math
import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from client import connection_check, device, doctor
from client.admission import Admissions
from client.audit import Audit
from client.cli import main
from client.doctor import examine
from client.enrol import CERTIFICATE, load_signing_key
from client.findings import NOTE, OK, WARNING, WRONG, Finding, exit_code, render
from client.forwarder import probe
from client.uplink.reach import reach
from configs.lock import only_one
from configs.papers import Request, Welcome, from_json, to_json
from configs.records.site_journal import Stopped
from configs.site import SiteConfig, load_site
from configs.strict_yaml import dump_yaml
from server import pki
from server.gateway.authorise import HEALTHY, Peer, health
from server.refusals import Refusal
from tests import builders, consortium
from tests.consortium import Consortium
from tests.proxy import FaultyWire, Proxy

NO_PROXIES = (
    "http://user:Geheim#42@proxy.example:3128",
    "http://user:Geheim/42@proxy.example:3128",
    "http://user:42/Geheim@proxy.example:3128",
    "http://user:Geheim 42@proxy.example:3128",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:0",
    "garbage:::x",
    "ftp://user:Geheim@proxy.example:3128",
    "socks5://user:Geheim@proxy.example:1080",
)
MARKER = "7.77777x"  # a value that a test plants in a patient's row


@contextlib.contextmanager
def door(
    authority: pki.Pki,
    *,
    clients: pki.Pki | None = None,
    clock_s: float = 0.0,
    status: int = 200,
    port: int = 0,
    body: bytes = b"ok",
    protocol: str = "HTTP/1.1",
) -> Iterator[int]:
    """A coordinator's door as `check` sees it: certificate, clock, whom it lets in (status 0: nobody); the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = protocol

        def do_GET(self) -> None:
            if not status:
                return
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return email.utils.formatdate(time.time() + clock_s, usegmt=True)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(request, server_side=True) as tls:
                super().finish_request(tls, client_address)

        def handle_error(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(authority.folder / "server.crt", authority.folder / "server.key")
    if clients is not None:
        context.load_verify_locations(clients.ca_certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    server = Server(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def own(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path / "consortium")


@pytest.fixture
def joined(own: Consortium, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes a hospital that joined the coordinator at a port."""

    def join(port: int, host: str = "127.0.0.1", **document: Any) -> SiteConfig:
        monkeypatch.setattr(consortium, "ADDRESS", f"{host}:{port}")
        data = tmp_path / "patients.csv"
        data.write_text("age,sex,disease\n" + "".join(f"{20 + n // 2},female,{n % 2}\n" for n in range(100)))
        datasets = {"test-study": {"connector": "csv", "path": str(data)}}
        return own.hospital("lille", **({"datasets": datasets} | document))

    return join


def found(config: SiteConfig, check: str) -> Finding:
    """The worst finding of a check."""
    order = (OK, NOTE, WARNING, WRONG)
    return max((f for f in examine(config.folder) if f.check == check), key=lambda f: order.index(f.verdict))


def test_at_a_hospital_where_all_is_well_nothing_is_to_do(own: Consortium, joined: Any) -> None:
    with door(own.pki, clients=own.pki) as port:
        config = joined(port)
        findings = examine(config.folder)
        assert exit_code(findings) == 0, render(findings)
        assert found(config, "connection").text == f"127.0.0.1:{port} answers"
        assert found(config, "clock").verdict == OK


def test_the_commands_exit_code_is_for_monitoring(own: Consortium, joined: Any) -> None:
    command = [sys.executable, "-m", "client.cli", "-C"]
    with door(own.pki, clients=own.pki) as port:
        config = joined(port)
        done = subprocess.run([*command, str(config.folder), "check"], capture_output=True, text=True, check=False)
        assert (done.returncode, "all is well" in done.stdout) == (0, True), done.stdout
        text = (config.folder / "site.yaml").read_text()
        (config.folder / "site.yaml").write_text(text + "policy: {max_epsilon: 50}\n")
        done = subprocess.run([*command, str(config.folder), "check"], capture_output=True, text=True, check=False)
        assert (done.returncode, "all is well, with 1 to know of" in done.stdout) == (1, True), done.stdout
    done = subprocess.run([*command, str(config.folder), "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "who:  the consortium" in done.stdout


# The way to the coordinator


def test_a_name_that_is_not_known(joined: Any) -> None:
    finding = found(joined(8443, host="coordinator.invalid"), "connection")
    assert finding == Finding(
        "connection",
        WRONG,
        "the name coordinator.invalid is not known here",
        "the hospital's network team",
        "correct the name server, or coordinator",
    )


def test_a_coordinator_that_does_not_listen(joined: Any) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    finding = found(joined(port), "connection")
    assert "refuses the connection" in finding.text
    assert finding.who == "the consortium, then the hospital's network team"
    assert f"allow this machine to connect to 127.0.0.1:{port}, TCP, outwards" in finding.todo


def test_a_port_that_is_blocked(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full drops what comes, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(8):
            probe = stack.enter_context(socket.socket())
            probe.setblocking(False)
            probe.connect_ex(full.getsockname())
        monkeypatch.setattr(connection_check, "reach", lambda address, context: reach(address, context, timeout_s=1.0))
        finding = found(joined(full.getsockname()[1]), "connection")
    assert "the port is blocked, or the network is down" in finding.text
    assert finding.who == "the hospital's network team"


def test_the_way_through_a_proxy_with_a_password(own: Consortium, joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with door(own.pki, clients=own.pki) as port, Proxy("node:s3cret") as proxy:
        config = joined(port)
        monkeypatch.setenv("HTTPS_PROXY", f"http://node:s3cret@127.0.0.1:{proxy.port}")
        assert found(config, "connection").text == f"127.0.0.1:{port} answers through the proxy 127.0.0.1:{proxy.port}"
        monkeypatch.setenv("HTTPS_PROXY", f"http://node:wr0ng@127.0.0.1:{proxy.port}")
        finding = found(config, "connection")
    assert "asks for a name and password, or does not accept those of HTTPS_PROXY" in finding.text
    assert "wr0ng" not in render([finding])


def test_a_proxy_that_forbids_the_address(own: Consortium, joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with door(own.pki) as port, Proxy(forbid=True) as proxy:
        config = joined(port)
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        finding = found(config, "connection")
    assert f"forbids 127.0.0.1:{port}" in finding.text
    assert finding.todo == f"allow CONNECT to 127.0.0.1:{port} at the proxy"


def test_a_proxy_that_is_not_there(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = joined(8443)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert found(config, "connection").text == "the proxy 127.0.0.1:9 does not listen"
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    assert "the name proxy.invalid is not known here" in found(config, "connection").text


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("value", NO_PROXIES)
def test_a_proxy_that_is_none_is_said_without_its_password(
    joined: Any, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    config = joined(8443)
    monkeypatch.setenv(variable, value)
    finding = found(config, "connection")
    assert finding.text.startswith(f"{variable.upper()}: expected ")
    assert "http://[NAME:PASSWORD@]HOST:PORT" in finding.text
    assert ("write %23 %2F %40" in finding.text) == ("socks" not in value)
    assert "Geheim" not in render([finding])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert "refuses the connection" in found(config, "connection").text


def test_a_proxy_that_all_proxy_names_is_used(own: Consortium, joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with door(own.pki, clients=own.pki) as port, Proxy("a b:p@ss") as proxy:
        config = joined(port)
        monkeypatch.setenv("ALL_PROXY", f"a%20b:p%40ss@127.0.0.1:{proxy.port}")
        assert found(config, "connection").text == f"127.0.0.1:{port} answers through the proxy 127.0.0.1:{proxy.port}"


@pytest.mark.parametrize("how", ["reset", "close", "silent"])
def test_a_way_that_carries_no_message_is_told_from_one_that_does(own: Consortium, joined: Any, how: str) -> None:
    with door(own.pki, clients=own.pki) as port, FaultyWire(port, how, 9_000) as wire:
        finding = found(joined(wire.port), "connection")
    assert finding.verdict == WRONG
    assert f"127.0.0.1:{wire.port} answers, but then the connection" in finding.text
    assert finding.who == "the hospital's network team and the security officer"
    assert ("MTU" if how == "silent" else "exempt") in finding.todo


def test_a_proxy_that_opens_tls(own: Consortium, joined: Any, tmp_path: Path) -> None:
    inspecting = pki.Pki(tmp_path / "inspecting")
    inspecting.create("Hospital proxy".ljust(64, "."), ["127.0.0.1"], None)  # so long that it says nothing of Archipel
    with door(inspecting) as port:
        config = joined(port)
        finding = found(config, "connection")
        assert "is opened on the way: it shows a certificate by CN=Hospital proxy" in finding.text
        assert finding.who == "the hospital's network team and the security officer"
        assert f"exempt 127.0.0.1:{port} from TLS inspection" in finding.todo
        assert "by its message signatures alone" in finding.todo


def test_a_proxy_that_opens_tls_for_a_hospital_admitted_by_signatures_alone(
    own: Consortium, joined: Any, tmp_path: Path
) -> None:
    inspecting = pki.Pki(tmp_path / "inspecting")
    inspecting.create("Hospital proxy", ["127.0.0.1"], None)
    with door(inspecting) as port:
        config = joined(port, extra_ca=str(inspecting.ca_certificate))
        welcome = from_json(Welcome, config.welcome.read_bytes(), "welcome")
        config.welcome.write_bytes(to_json(replace(welcome, without_certificate=True)))
        assert found(config, "connection").verdict == OK


def test_a_hospital_whose_certificate_is_not_accepted(own: Consortium, joined: Any, tmp_path: Path) -> None:
    other = pki.Pki(tmp_path / "other")
    other.create("Other", ["127.0.0.1"], None)
    with door(own.pki, clients=other) as port:
        finding = found(joined(port), "connection")
    assert "does not accept this hospital's certificate" in finding.text
    assert finding.who == "the consortium"


def test_an_address_that_is_no_coordinator(own: Consortium, joined: Any) -> None:
    with door(own.pki, status=404) as port:
        assert "but not as a coordinator (HTTP 404)" in found(joined(port), "connection").text


def test_something_that_speaks_no_tls(joined: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = plain.accept()
                    client.sendall(b"220 mail.example.org ESMTP\r\n" * 20)
                    client.close()

        threading.Thread(target=greet, daemon=True).start()
        finding = found(joined(plain.getsockname()[1]), "connection")
    assert "no TLS 1.3" in finding.text


def test_a_coordinators_certificate_for_other_names(own: Consortium, joined: Any) -> None:
    own.pki.renew_server(["coordinator.example.org"], None)
    with door(own.pki) as port:
        finding = found(joined(port), "connection")
    assert "is for other names" in finding.text
    assert finding.todo == "add the name to coordinator.yaml: init --renew"


def yesterday(monkeypatch: pytest.MonkeyPatch, days: str) -> None:
    """Certificates that are made from now on ended yesterday."""
    monkeypatch.setattr(pki, "_BACKDATED", datetime.timedelta(days=3))
    monkeypatch.setattr(pki, days, -1)


def test_a_coordinators_certificate_that_expired_yesterday(
    own: Consortium, joined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    yesterday(monkeypatch, "SERVER_DAYS")
    own.pki.renew_server(["127.0.0.1"], None)
    with door(own.pki) as port:
        finding = found(joined(port), "connection")
    assert "does not hold today" in finding.text
    assert finding.todo == "archipel-coordinator init --renew"


def test_a_hospitals_certificate_that_expired_yesterday(
    own: Consortium, joined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with door(own.pki, clients=own.pki) as port:
        config = joined(port)
        yesterday(monkeypatch, "SITE_DAYS")
        request = from_json(Request, (config.folder / "request.json").read_bytes(), "request")
        (config.keys / CERTIFICATE).write_text(own.pki.sign(request, "request", None)[0])
        finding = found(config, "certificate")
        assert (finding.verdict, "expired on" in finding.text) == (WRONG, True)
        assert finding.who == "hospital IT, then the consortium"
        assert "does not accept this hospital's certificate" in found(config, "connection").text


def test_a_hospital_that_was_revoked(own: Consortium, joined: Any) -> None:
    """The gateway's own words: with a certificate that is not admitted, the health path says so too."""
    with pytest.raises(Refusal) as refused:
        health(Peer("lille", b"key", b"header", math.inf), lambda key: None)
    with door(own.pki, clients=own.pki, status=refused.value.status, body=refused.value.why.encode()) as port:
        finding = found(joined(port), "connection")
    assert (finding.verdict, finding.who) == (WRONG, "the consortium")
    assert finding.text.endswith("does not accept this hospital's certificate (this key is not admitted, or no longer)")
    assert finding.todo == "look whether this hospital is revoked, or admit it again"


def test_a_coordinator_that_hangs_up_does_not_accept_the_certificate(own: Consortium, joined: Any) -> None:
    """A door may end the connection of an expired certificate without a word."""
    with door(own.pki, clients=own.pki, status=0) as port:
        finding = found(joined(port), "connection")
    assert "does not accept this hospital's certificate (the connection was closed without an answer)" in finding.text


def test_another_consortiums_authority_is_not_taken_for_the_hospitals_proxy(
    own: Consortium, joined: Any, tmp_path: Path
) -> None:
    anew = pki.Pki(tmp_path / "anew")
    anew.create("Demo", ["127.0.0.1"], None)
    with door(anew) as port:
        finding = found(joined(port), "connection")
    assert "is not the authority of this welcome" in finding.text
    assert finding.who == "hospital IT, then the consortium"
    assert "telephone the consortium" in finding.todo
    assert "TLS inspection" not in finding.text + finding.todo


@pytest.mark.parametrize(
    ("days", "verdict", "text"), [(10, WARNING, "expires on"), (31, OK, "valid until")], ids=["soon", "in time"]
)
def test_a_hospitals_certificate_is_said_to_expire_a_month_before(
    joined: Any, monkeypatch: pytest.MonkeyPatch, days: int, verdict: str, text: str
) -> None:
    monkeypatch.setattr(pki, "SITE_DAYS", days)
    finding = found(joined(8443), "certificate")
    assert (finding.verdict, text in finding.text) == (verdict, True)


@pytest.mark.parametrize(
    ("clock_s", "verdict", "text"),
    [
        (-600, WARNING, "ahead of the coordinator's"),
        (600, WARNING, "behind the coordinator's"),
        (7200, WRONG, "behind the coordinator's"),
    ],
)
def test_a_clock_that_is_off(own: Consortium, joined: Any, clock_s: float, verdict: str, text: str) -> None:
    with door(own.pki, clock_s=clock_s) as port:
        finding = found(joined(port), "clock")
    assert (finding.verdict, text in finding.text) == (verdict, True)
    assert finding.todo.startswith("set the clock (NTP)")


# The hospital's own machine


def test_a_release_other_than_the_consortiums(joined: Any) -> None:
    config = joined(8443)
    welcome = from_json(Welcome, config.welcome.read_bytes(), "welcome")
    config.welcome.write_bytes(to_json(replace(welcome, version="9.9.9")))
    finding = found(config, "release")
    assert finding.verdict == WARNING
    assert finding.todo == "install archipel 9.9.9, or ask for a new welcome"


def test_a_release_other_than_the_one_that_the_coordinator_runs_now(own: Consortium, joined: Any) -> None:
    """The consortium has gone on since it wrote the welcome."""
    with door(own.pki, body=HEALTHY.replace(b"archipel ", b"archipel 9")) as port:
        finding = found(joined(port), "release")
    assert finding.verdict == WARNING
    assert f"the consortium runs 9{version('archipel')}" in finding.text
    assert finding.who == "hospital IT, with the consortium"


def test_where_the_coordinator_tells_its_release_the_welcomes_is_not_asked(own: Consortium, joined: Any) -> None:
    with door(own.pki, body=HEALTHY) as port:
        config = joined(port)
        welcome = from_json(Welcome, config.welcome.read_bytes(), "welcome")
        config.welcome.write_bytes(to_json(replace(welcome, version="0.0.1")))
        assert found(config, "release").verdict == OK


@pytest.mark.parametrize("there", [True, False])
def test_a_gpu_is_said_with_what_it_is_for(
    joined: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    monkeypatch.setattr(device, "NVIDIA", tmp_path if there else tmp_path / "none")
    finding = found(joined(8443), "gpu")
    assert (finding.verdict, "NVIDIA" in finding.text) == (NOTE, there)
    assert "training uses the processor" in finding.text


def test_a_hospital_that_did_not_join(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("site: lille\ncoordinator: localhost:8443\n")
    findings = examine(tmp_path)
    assert [f.check for f in findings if f.verdict == WRONG] == ["keys", "welcome"]
    assert exit_code(findings) == 2


def test_mistakes_of_site_yaml(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("sight: lille\n")
    (finding,) = examine(tmp_path)
    assert (finding.check, finding.verdict) == ("site.yaml", WRONG)
    assert "coordinator" in finding.text


def test_a_site_yaml_that_changed_since_the_node_started_is_said(
    joined: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or check, review and ledger would speak of a policy that is not in force."""
    config = joined(8443)
    path = config.folder / "site.yaml"
    with only_one(config.lock, "another runs", config.sha256):
        assert found(config, "site.yaml").verdict == OK
        path.write_text(path.read_text() + "policy: {max_epsilon: 2}\n")
        finding = found(config, "site.yaml")
        assert (finding.verdict, finding.todo) == (WARNING, "restart the node")
        assert "changed since the node started" in finding.text
        for command in ("review", "ledger"):
            assert main(["-C", str(config.folder), command]) == 0
            assert "WARNING  site.yaml changed since the node started" in capsys.readouterr().out
    assert found(config, "site.yaml").verdict == OK  # no node runs: the next one starts with this one
    with only_one(config.lock, "another runs"):  # a node of an earlier version does not say
        assert found(config, "site.yaml").verdict == OK


def test_a_key_that_others_can_read(joined: Any) -> None:
    config = joined(8443)
    (config.keys / "node.key").chmod(0o640)
    assert "can be read by others (mode 640)" in found(config, "keys").text


@pytest.mark.parametrize(
    "policy",
    [
        {"max_epsilon": 50.0},
        {"delta": 0.005},
        {"allow_privacy_none": True},
        {"require_approval": False},
        {"min_patients": 1},
    ],
)
def test_a_policy_that_protects_little_is_questioned(joined: Any, policy: dict[str, object]) -> None:
    finding = found(joined(8443, policy=policy), "policy")
    assert finding.verdict == WARNING
    assert next(iter(policy)) in finding.text
    assert finding.who == "the DPO and whoever wrote site.yaml"


def test_one_file_under_two_identities(joined: Any, tmp_path: Path) -> None:
    source = {"connector": "csv", "path": str(tmp_path / "patients.csv")}
    finding = found(joined(8443, datasets={name: source | {"identity": name} for name in ("one", "two")}), "data")
    assert finding.verdict == WARNING
    assert "one and two read the same rows under two identities" in finding.text
    assert finding.todo == "give both the same identity"


@pytest.mark.parametrize(
    "content", [None, "", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize(
    ("name", "check", "cure"),
    [
        ("keys/site.crt", "certificate", "join WELCOME writes it again"),
        ("keys/site.crt", "connection", "join WELCOME writes it again"),
        ("keys/node.key", "keys", "enrol"),
        ("keys/signing.key", "keys", "enrol"),
        ("proxy.pem", "connection", "ask the network team for the file"),
    ],
)
def test_a_file_that_is_not_there_or_damaged_is_named_with_its_cure(
    joined: Any, content: str | None, name: str, check: str, cure: str
) -> None:
    config = joined(8443, extra_ca="proxy.pem")
    shutil.copy(ssl_file(config), config.folder / "proxy.pem")
    path = config.folder / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    finding = found(config, check)
    assert finding.verdict == WRONG
    assert str(path) in finding.text
    assert cure in finding.text + finding.todo
    assert "PEM lib" not in finding.text


def ssl_file(config: SiteConfig) -> Path:
    """Some authority's certificate."""
    return config.folder.parent / "pki" / "ca.crt"


def test_a_disk_that_is_nearly_full(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = joined(8443)
    usage = shutil.disk_usage(config.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=40_000_000))
    assert found(config, "disk") == Finding(
        "disk",
        WRONG,
        "40 MB free",
        "hospital IT",
        f"make room in {config.folder}: every message that leaves is kept there",
    )


def test_a_machine_with_little_memory(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_available_memory", lambda: 500_000_000)
    assert found(joined(8443), "memory").verdict == WARNING


def answers(monkeypatch: pytest.MonkeyPatch, returncode: int, said: str = "") -> None:
    """The attempt to leave the network ends so."""
    done = subprocess.CompletedProcess([], returncode, said, "")
    monkeypatch.setattr(doctor, "run", lambda *_, **__: done)


def test_a_worker_without_network_is_said_with_what_it_can_still_reach(
    joined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, 0, "Landlock 7 and seccomp\n")
    assert found(joined(8443), "fence").verdict == OK
    assert found(joined(8443), "isolation").text == "the process that sees patients has no network"
    with socket.create_server(("127.0.0.1", 0)) as server:
        config = joined(8443, worker_network=[f"127.0.0.1:{server.getsockname()[1]}"])
        expected = "the process that sees patients has no network but 1 listed address"
        assert found(config, "isolation") == Finding("isolation", OK, expected)
        assert found(config, "worker_network").verdict == OK


def test_a_worker_that_the_kernel_keeps_in_the_network_is_said_listed_addresses_or_not(
    joined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, 3)
    for listed in ([], ["127.0.0.1:1"]):
        finding = found(joined(8443, worker_network=listed), "isolation")
        assert (finding.verdict, finding.who) == (WARNING, "hospital IT")
        assert "does not let the process that sees patients leave the network" in finding.text


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("seccomp", "no Landlock for the process that sees patients: it may read and write what this user may"),
        ("Landlock 3", "no seccomp for the process that sees patients: it may start programs"),
        ("nothing", "no Landlock and no seccomp for"),
    ],
)
def test_a_kernel_without_a_fence_is_said(joined: Any, monkeypatch: pytest.MonkeyPatch, held: str, said: str) -> None:
    answers(monkeypatch, 0, held)
    finding = found(joined(8443), "fence")
    assert finding.verdict == NOTE
    assert said in finding.text


def test_a_worker_that_would_reach_nothing_at_all_is_said(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, 4, "no loopback of its own\n")
    finding = found(joined(8443, worker_network=["127.0.0.1:1"]), "isolation")
    assert (finding.verdict, finding.text) == (WRONG, "no loopback of its own")


def test_a_listed_data_base_whose_name_is_not_known(joined: Any) -> None:
    finding = found(joined(8443, worker_network=["db.invalid:5432"]), "worker_network")
    assert (finding.verdict, finding.text) == (WRONG, "the name in db.invalid:5432 is not known here")
    assert "name server" in finding.todo


def test_a_listed_data_base_that_refuses_the_connection(joined: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    finding = found(joined(8443, worker_network=[address]), "worker_network")
    assert (finding.verdict, finding.who) == (WRONG, "whoever runs the data base, then the hospital's network team")
    assert f"{address} refuses the connection" in finding.text


def test_a_listed_data_base_that_does_not_answer(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as full:  # a server that accepts nothing, and whose queue is full
        server = full.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        monkeypatch.setattr(doctor, "probe", lambda address: probe(address, timeout_s=0.5))
        finding = found(joined(8443, worker_network=[f"127.0.0.1:{server.getsockname()[1]}"]), "worker_network")
    assert (finding.verdict, "does not answer" in finding.text) == (WRONG, True)
    assert finding.who.startswith("the hospital's network team")


def test_a_journal_that_was_changed(joined: Any) -> None:
    config = joined(8443)
    audit = Audit(config, load_signing_key(config))
    for _ in range(3):
        audit.note(Stopped())
    lines = config.journal.read_text().splitlines(keepends=True)
    config.journal.write_text("".join([lines[0], lines[2]]))
    finding = found(config, "journal")
    assert finding.verdict == WRONG
    assert "record 2" in finding.text


# Its data


def test_data_are_not_opened_before_a_study_of_them_is_approved(joined: Any) -> None:
    config = joined(8443)
    config.datasets[0].source.path.write_text("no table at all")
    assert found(config, "data").text == "test-study: readable; not opened, no study of it is approved"


def test_data_that_are_not_there(joined: Any) -> None:
    config = joined(8443)
    config.datasets[0].source.path.unlink()
    finding = found(config, "data")
    assert (finding.verdict, finding.who) == (WRONG, "whoever keeps the data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_data_that_this_user_cannot_read(joined: Any) -> None:
    config = joined(8443)
    config.datasets[0].source.path.chmod(stat.S_IWUSR)
    assert found(config, "data").verdict == WRONG


def approve(config: SiteConfig) -> None:
    study = builders.study()
    admissions = Admissions.open(config.admissions)
    admissions.propose(study.sha256, study.name, study.canonical)
    admissions.decide(study.sha256, "approved")
    admissions.close()


def test_data_that_fit_the_approved_study(joined: Any) -> None:
    config = joined(8443)
    approve(config)
    assert found(config, "data").text == "test-study: fits the approved study"


def test_rows_that_are_equal_word_for_word_are_told(joined: Any) -> None:
    config = joined(8443)
    approve(config)
    path = config.datasets[0].source.path
    path.write_text(path.read_text() + "".join(path.read_text().splitlines(keepends=True)[1:]))
    finding = found(config, "data")
    assert (finding.verdict, "100 rows equal to another, word for word" in finding.text) == (WARNING, True)


def test_data_that_do_not_fit_are_named_without_a_value(joined: Any) -> None:
    config = joined(8443)
    approve(config)
    path = config.datasets[0].source.path
    path.write_text(path.read_text() + f"{MARKER},male,1\n")
    finding = found(config, "data")
    assert (finding.verdict, "age" in finding.text) == (WARNING, True)
    assert MARKER not in render(examine(config.folder))


def test_a_check_that_fails_itself_is_a_finding(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: SiteConfig) -> Iterator[Finding]:
        raise OSError(f"patient {MARKER}")
        yield

    monkeypatch.setattr(doctor, "_machine", broken)
    finding = found(joined(8443), "machine")
    assert finding.verdict == WRONG
    assert MARKER not in finding.text


def test_a_check_that_cannot_open_a_file_names_it(joined: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: SiteConfig) -> Iterator[Finding]:
        yield from (Finding("machine", OK, line) for line in (config.folder / "none").open())

    monkeypatch.setattr(doctor, "_machine", broken)
    config = joined(8443)
    assert (
        found(config, "machine").text == f"could not be looked at ({config.folder / 'none'}: No such file or directory)"
    )


def test_the_checked_folder_is_not_changed(own: Consortium, joined: Any) -> None:
    config = joined(8443)
    examine(config.folder)  # the list of admissions may be made
    before = {p: p.read_bytes() for p in config.folder.rglob("*") if p.is_file()}
    examine(config.folder)
    assert {p: p.read_bytes() for p in config.folder.rglob("*") if p.is_file()} == before
    assert load_site(config.folder) == config
    assert dump_yaml({"site": "lille"})

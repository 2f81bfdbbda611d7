"""`archipel-coordinator` as the consortium types it: what it prints, what it writes down, what it lets others read."""

import dataclasses
import datetime
import fcntl
import json
import os
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from client.enrol import enrol
from configs import journal as journals
from configs.coordinator import CoordinatorConfig, load_coordinator
from configs.errors import ConfigError, RunError
from configs.load import load_study
from configs.lock import holder, only_one
from configs.papers import Welcome, from_json
from configs.site import load_site
from configs.strict_yaml import dump_yaml, read_yaml
from server import pki
from server.cli import main
from server.membership import Membership
from tests.builders import study

Output = pytest.CaptureFixture[str]


def type_(folder: Path, *words: str) -> int:
    return main(["-C", str(folder), *words])


@pytest.fixture
def centre(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(pki.PASSPHRASE, raising=False)
    folder = tmp_path / "consortium"
    assert type_(folder, "init", "--name", "Heart", "--names", "coord.example.org", "10.0.0.7") == 0
    return folder


def request_of(folder: Path, site: str) -> Path:
    """A hospital's request, as it comes by mail."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "site.yaml").write_text(f"site: {site}\ncoordinator: coord.example.org:8443\n")
    return enrol(load_site(folder))[0]


def noted(centre: Path, kind: str) -> list[dict[str, object]]:
    return [record.facts for record in journals.read(load_coordinator(centre).journal) if record.kind == kind]


def test_init_makes_the_authority_the_doors_certificate_for_the_names_asked_and_an_empty_database(centre: Path) -> None:
    config = load_coordinator(centre)
    door = x509.load_pem_x509_certificate((config.pki / "server.crt").read_bytes())
    names = door.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["coord.example.org"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    door.verify_directly_issued_by(x509.load_pem_x509_certificate((config.pki / "ca.crt").read_bytes()))
    members = Membership.open(config.database)
    assert (members.sites(), members.runs()) == ([], [])
    assert type_(centre, "init") == 2  # not a second authority


def test_init_encrypts_the_authoritys_key_when_a_passphrase_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv(pki.PASSPHRASE, "correct horse")
    centre = tmp_path / "consortium"
    assert type_(centre, "init", "--name", "Heart", "--names", "localhost") == 0
    assert b"ENCRYPTED" in (centre / "pki" / "ca.key").read_bytes()
    request = str(request_of(tmp_path / "lille", "lille"))
    assert type_(centre, "admit", request) == 0
    monkeypatch.setenv(pki.PASSPHRASE, "wrong horse")
    assert type_(centre, "admit", request) == 2
    said = capsys.readouterr()
    assert f"set {pki.PASSPHRASE}" in said.err
    written = b"".join(path.read_bytes() for path in centre.rglob("*") if path.is_file())
    assert "horse" not in said.out + said.err
    assert b"horse" not in written


def test_what_a_coordinator_writes_is_its_owners_even_in_an_open_folder(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        centre = tmp_path / "consortium"
        centre.mkdir(mode=0o755)
        (centre / "coordinator.yaml").write_text("name: Heart\nnames: [localhost]\n")
        assert type_(centre, "init") == 0
        assert type_(centre, "admit", str(request_of(tmp_path / "lille", "lille"))) == 0
        assert type_(centre, "submit", str(Path(__file__).parents[2] / "configs/presets/rehearsal.yaml")) == 0
    finally:
        os.umask(before)
    made = [path for path in centre.rglob("*") if path.name != "coordinator.yaml"]
    assert len(made) > 9
    assert [path for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_admit_registers_the_node_key_and_writes_a_welcome_that_holds_no_secret(centre: Path, tmp_path: Path) -> None:
    request = request_of(tmp_path / "lille", "lille")
    assert type_(centre, "admit", str(request)) == 0
    config, paper = load_coordinator(centre), (centre / "welcome" / "lille.json").read_bytes()
    welcome = from_json(Welcome, paper, "welcome")
    public = x509.load_pem_x509_certificate(welcome.certificate.encode()).public_key()
    admitted = Membership.open(config.database).lookup(pki.public_pem(public))  # type: ignore[arg-type]
    assert admitted is not None
    assert (admitted.site, admitted.certificate_required) == ("lille", True)
    secrets = [*config.pki.glob("*.key"), *(tmp_path / "lille" / "keys").glob("*.key")]
    assert len(secrets) == 5
    for path in secrets:
        body = path.read_text().splitlines()[1]
        assert body.encode() not in paper + request.read_bytes()
    ssl.create_default_context(cadata=welcome.ca_certificate)


def test_to_admit_a_hospital_by_its_signatures_alone_is_an_explicit_choice_that_is_journaled(
    centre: Path, tmp_path: Path, capsys: Output
) -> None:
    for site, options in (("lille", []), ("lyon", ["--signatures-alone"])):
        assert type_(centre, "admit", str(request_of(tmp_path / site, site)), *options) == 0
    assert [(fact["site"], fact["without_certificate"]) for fact in noted(centre, "admitted")] == [
        ("lille", False),
        ("lyon", True),
    ]
    capsys.readouterr()
    assert type_(centre, "sites") == 0
    _, lille, lyon = capsys.readouterr().out.splitlines()
    assert "signatures alone" not in lille
    assert "no certificate: message signatures alone" in lyon


@pytest.mark.parametrize(("days", "said"), [(398, ""), (20, "expires soon"), (-1, "EXPIRED")])
def test_sites_says_who_is_connected_revoked_and_expiring(
    centre: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output, days: int, said: str
) -> None:
    monkeypatch.setattr(pki, "_BACKDATED", datetime.timedelta(days=3))
    for site in ("lille", "lyon", "nantes"):
        monkeypatch.setattr(pki, "SITE_DAYS", days if site == "lille" else 398)
        assert type_(centre, "admit", str(request_of(tmp_path / site, site))) == 0
    assert type_(centre, "revoke", "lyon") == 0
    Membership.open(load_coordinator(centre).database).set_connected({"lille": True, "lyon": True})
    capsys.readouterr()
    assert type_(centre, "sites") == 0
    _, lille, lyon, nantes = capsys.readouterr().out.splitlines()
    assert lille.split()[:2] == ["lille", "connected"]
    assert lyon.split()[:2] == ["lyon", "revoked"]
    assert nantes.split()[:3] == ["nantes", "not", "connected"]
    assert (said in lille, "xpire" in nantes) == (True, False)
    assert bool(said) == ("xpire" in lille.lower())
    assert [fact["site"] for fact in noted(centre, "revoked")] == ["lyon"]


def test_start_prints_its_nginx_configuration_and_makes_the_certificate_optional_only_for_an_exception(
    centre: Path, tmp_path: Path, capsys: Output
) -> None:
    capsys.readouterr()
    for options, verify in (([], "on"), (["--signatures-alone"], "optional")):
        assert type_(centre, "admit", str(request_of(tmp_path / "lille", "lille")), *options) == 0
        capsys.readouterr()
        assert type_(centre, "start", "--print-nginx") == 0
        printed = capsys.readouterr().out
        assert f"ssl_verify_client {verify};" in printed
        assert f"{load_coordinator(centre).pki}/server.crt" in printed


ABSENT = "no coordinator runs here; start it with: archipel-coordinator -C {} start"


def test_a_coordinator_that_was_killed_is_said_whatever_the_run_says_of_itself(
    centre: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """Nobody is left to write down that a run ended."""
    preset = Path(__file__).parents[2] / "configs/presets/rehearsal.yaml"
    assert type_(centre, "submit", str(preset)) == 0
    config, absent = load_coordinator(centre), ABSENT.format(centre.resolve())
    members = Membership.open(config.database)
    members.set_ready(members.runs()[0].name, ["lille"])
    name = members.next_run()
    assert name is not None
    members.set_state(name, "RUNNING")
    capsys.readouterr()

    assert type_(centre, "status") == 0
    assert capsys.readouterr().out.splitlines()[-1] == absent
    assert type_(centre, "resume", name) == 2
    assert capsys.readouterr().err.endswith(
        f"expected a run that ended INCOMPLETE, found RUNNING; {absent}: it goes on by itself\n"
    )
    monkeypatch.setattr(time, "sleep", lambda _: members.hold("held"))
    assert type_(centre, "watch", name) == 1
    assert absent in capsys.readouterr().out.splitlines()
    assert type_(centre, "resume", name) == 0
    assert capsys.readouterr().out.splitlines()[-1] == absent

    with only_one(config.lock, "another coordinator runs"):
        assert type_(centre, "status") == 0
        members.set_state(name, "RUNNING")
        assert type_(centre, "resume", name) == 2
        assert type_(centre, "watch", name) == 1
        said = capsys.readouterr()
        assert "no coordinator" not in said.out + said.err


def test_a_study_with_hospitals_that_only_test_but_asks_them_nothing_is_not_queued(
    centre: Path, tmp_path: Path, capsys: Output
) -> None:
    document = study(evaluation={"test_fraction": 0.3, "test_only": ["lyon"]}).to_dict()
    (tmp_path / "study.yaml").write_text(dump_yaml(document))
    assert type_(centre, "submit", str(tmp_path / "study.yaml")) == 2
    assert "evaluation.release: expected it beside evaluation.test_only, found none" in capsys.readouterr().err
    assert Membership.open(load_coordinator(centre).database).runs() == []


def test_a_study_that_is_queued_is_not_queued_twice_unless_somebody_says_again(centre: Path, capsys: Output) -> None:
    preset = str(Path(__file__).parents[2] / "configs/presets/rehearsal.yaml")
    assert type_(centre, "submit", preset) == 0
    members = Membership.open(load_coordinator(centre).database)
    (run,) = members.runs()
    assert type_(centre, "submit", preset) == 2
    assert f"found it as {run.name}; watch that one, or submit it --again" in capsys.readouterr().err
    assert len(members.runs()) == 1
    assert type_(centre, "submit", preset, "--again") == 0
    for one in members.runs():
        members.set_state(one.name, "COMPLETE")
    assert type_(centre, "submit", preset) == 0
    assert len(members.runs()) == 3


def test_what_became_of_each_hospital_is_read_after_the_end_as_well(centre: Path, capsys: Output) -> None:
    preset = Path(__file__).parents[2] / "configs/presets/heart_disease.yaml"
    assert type_(centre, "submit", str(preset)) == 0
    config = load_coordinator(centre)
    members = Membership.open(config.database)
    (run,) = members.runs()
    first, second, *others = load_study(preset).sites
    lost, no = "not connected since 2026-01-01 10:02 UTC", "the hospital refused this study"
    journal = journals.Journal(config.runs / run.name / "journal.jsonl")
    journal.append("refused", site=first, code=111, reason=no, final=True)
    journal.append("gathered", sites=[second, *others], bytes={}, missing={first: no})
    for number in (1, 2, 3):
        missing = {first: no} | ({second: lost} if number == 2 else {})
        contributed = {site: 100 for site in (second, *others) if site not in missing}
        journal.append("round", round=number, contributed=contributed, missing=missing, seconds=1.0)
    journal.append("joined", sites=[first], bytes={first: 70}, before_round=4)
    members.set_state(run.name, "COMPLETE")
    capsys.readouterr()

    assert type_(centre, "status", "latest") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [first, f"contributed to 0 of 3 rounds; {no}"] in lines
    assert [second, f"contributed to 2 of 3 rounds; {lost}"] in lines
    assert all([site, "contributed to 3 of 3 rounds"] in lines for site in others)

    assert type_(centre, "watch", run.name) == 0
    watched = capsys.readouterr().out
    assert f"gathered: {', '.join([second, *others])}; {first}: {no}" in watched
    assert f"{second}: {lost}" in watched
    assert f"{first}: takes part from round 4 on" in watched


def test_init_writes_down_how_long_is_waited(centre: Path) -> None:
    config, text = load_coordinator(centre), (centre / "coordinator.yaml").read_text()
    assert (config.gather_timeout_s, config.gather_quorum_after_s, config.absent_after_s) == (30 * 86_400, 3600, 60)
    assert all(f"\n# {key}: " in text for key in ("gather_timeout_s", "gather_quorum_after_s", "absent_after_s"))
    (centre / "coordinator.yaml").write_text(text.replace("# gather_timeout_s: 2592000", "gather_timeout_s: 7776001"))
    with pytest.raises(ConfigError, match="gather_timeout_s"):
        load_coordinator(centre)


def test_one_coordinator_runs_in_a_folder_and_whoever_asks_for_it_does_not_hinder_its_start(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.lock"
    assert holder(path) is None
    with only_one(path, "stop it first", "of this one"):
        assert holder(path) == "of this one"
        with pytest.raises(RunError, match="stop it first"), only_one(path, "stop it first", "of another"):
            pass
        assert holder(path) == "of this one"
    assert holder(path) is None
    with path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.1, asking.close).start()
        with only_one(path, "stop it first"):
            assert holder(path) == ""


# What it says to people


def typing(monkeypatch: pytest.MonkeyPatch, *typed: str) -> None:
    """Somebody at a terminal who answers each question for a passphrase."""
    answers = iter(typed)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))


@pytest.mark.parametrize(
    ("name", "names", "listen"),
    [
        ("Heart", ["coord.example.org"], "0.0.0.0:8443"),
        ("Réseau: cœur #1 \\1", ["10.0.0.7", "coord.example.org"], "127.0.0.1:9443"),
        ("- yes", ["a.example"], "[::1]:8443"),
    ],
)
def test_init_writes_every_setting_with_its_meaning(tmp_path: Path, name: str, names: list[str], listen: str) -> None:
    assert type_(tmp_path, "init", "--name", name, "--names", *names, "--listen", listen) == 0
    text = (tmp_path / "coordinator.yaml").read_text("utf-8")
    config = load_coordinator(tmp_path)
    assert (config.name, list(config.names), config.listen) == (name, names, listen)
    keys = {field.name for field in dataclasses.fields(config)} - {"folder"}
    lines = [line.removeprefix("# ") for line in text.splitlines()[1:]]
    assert keys == {line.partition(":")[0] for line in lines}
    default = CoordinatorConfig(config.folder, name, tuple(names), listen)
    assert config == default
    with (tmp_path / "coordinator.yaml").open("a") as file:  # who wants another value may add a line
        file.write("health: 127.0.0.1:9999\ngather_timeout_s: 600\n")
    assert (load_coordinator(tmp_path).health, load_coordinator(tmp_path).gather_timeout_s) == ("127.0.0.1:9999", 600)
    (tmp_path / "coordinator.yaml").write_text("\n".join(lines))  # with every commented line in force
    assert load_coordinator(tmp_path) == default  # what is written there is what holds without it


def test_init_asks_somebody_at_a_terminal_for_a_passphrase_before_the_key_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delenv(pki.PASSPHRASE, raising=False)
    words = ("init", "--name", "Heart", "--names", "localhost")
    typing(monkeypatch, "correct horse", "wrong horse")
    assert type_(tmp_path / "a", *words) == 2
    assert not (tmp_path / "a" / "pki").exists()
    assert "cannot be had again" in capsys.readouterr().err
    typing(monkeypatch, "correct horse", "correct horse")
    assert type_(tmp_path / "a", *words) == 0
    assert b"ENCRYPTED" in (tmp_path / "a" / "pki" / "ca.key").read_bytes()
    assert "NOT encrypted" not in capsys.readouterr().out
    typing(monkeypatch, "")
    assert type_(tmp_path / "b", *words) == 0
    said = capsys.readouterr().out
    assert "the authority's key is NOT encrypted" in said
    assert f"set {pki.PASSPHRASE} and begin anew in another folder" in said


def test_next_commands_name_the_folder_as_it_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.delenv(pki.PASSPHRASE, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = Path("consortium")
    preset = str(Path(__file__).parents[2] / "configs/presets/rehearsal.yaml")
    for words in (("init", "--name", "Heart", "--names", "localhost"), ("status",), ("sites",), ("submit", preset)):
        assert type_(folder, *words) == 0
    assert type_(folder, "status") == 0
    said = capsys.readouterr().out
    for command in ("start", "admit REQUEST", "submit STUDY", "watch 2"):
        assert f"archipel-coordinator -C consortium {command}" in said, command
    assert f"-C {tmp_path}" not in said
    assert "archipel-coordinator start" not in said


def test_an_unfinished_study_is_not_submitted_and_the_command_that_finishes_it_is_named(
    centre: Path, capsys: Output
) -> None:
    preset = Path(__file__).parents[2] / "configs/presets/heart_auto.yaml"
    assert type_(centre, "submit", str(preset)) == 2
    assert f"archipel complete {preset}" in capsys.readouterr().err
    assert not Membership.open(load_coordinator(centre).database).runs()


def test_submit_says_who_does_what_next(centre: Path, capsys: Output) -> None:
    preset = Path(__file__).parents[2] / "configs/presets/rehearsal.yaml"
    assert type_(centre, "submit", str(preset)) == 0
    said = capsys.readouterr().out
    assert "soon it waits at each hospital of it that is connected" in said
    assert f"archipel-site approve {load_study(preset).sha256[:20]}" in said


def test_sites_have_headings(centre: Path, tmp_path: Path, capsys: Output) -> None:
    assert type_(centre, "admit", str(request_of(tmp_path / "lille", "lille"))) == 0
    capsys.readouterr()
    assert type_(centre, "sites") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["hospital", "state", "certificate"]
    assert first.index("state") == second.index("not connected")
    assert first.index("certificate") == second.index("until")


def test_status_and_watch_of_a_run_that_ended_say_where_its_report_is(centre: Path, capsys: Output) -> None:
    members = Membership.open(load_coordinator(centre).database)
    preset = Path(__file__).parents[2] / "configs/presets/rehearsal.yaml"
    assert type_(centre, "submit", str(preset)) == 0
    run = members.runs()[-1].name
    members.set_state(run, "COMPLETE", "")
    for command in (("status",), ("watch", run)):
        capsys.readouterr()
        type_(centre, *command)
        assert "report.html" not in capsys.readouterr().out
    (centre / "runs" / run / "report.html").write_text("")
    for command in (("status",), ("watch", run)):
        capsys.readouterr()
        assert type_(centre, *command) == 0
        assert f"report: {centre}/runs/{run}/report.html" in capsys.readouterr().out


def test_status_says_of_a_run_whose_hospitals_are_ready_which_other_run_comes_first(
    centre: Path, capsys: Output, tmp_path: Path
) -> None:
    members = Membership.open(load_coordinator(centre).database)
    preset = (Path(__file__).parents[2] / "configs/presets/rehearsal.yaml").read_text()
    for name in ("first", "second"):
        (tmp_path / name).write_text(preset.replace("name: rehearsal", f"name: {name}"))
        assert type_(centre, "submit", str(tmp_path / name)) == 0
    first, second = (run.name for run in members.runs())

    def line_of_the_second() -> str:
        capsys.readouterr()
        assert type_(centre, "status") == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith(second))

    members.set_state(first, "RUNNING")
    assert "turn" not in line_of_the_second()
    members.set_ready(second, ["cleveland"])
    assert line_of_the_second().endswith(f"QUEUED: its turn comes after {first}")
    members.set_state(first, "COMPLETE")
    assert "turn" not in line_of_the_second()


def test_watch_says_who_is_waited_for_only_until_hospitals_are_gathered(
    centre: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    members = Membership.open(load_coordinator(centre).database)
    preset = Path(__file__).parents[2] / "configs/presets/rehearsal.yaml"
    assert type_(centre, "submit", str(preset)) == 0
    run = members.runs()[-1].name
    members.set_state(run, "WAITING", "")
    journal = journals.Journal(centre / "runs" / run / "journal.jsonl")
    steps: Iterator[Callable[[], object]] = iter(
        [
            lambda: journal.append("begin"),
            lambda: members.set_presence(run, "cleveland", "not yet"),
            lambda: journal.append("gathered", sites=["cleveland"]),
            lambda: members.set_presence(run, "cleveland", "takes part"),
            lambda: members.set_state(run, "COMPLETE", ""),
        ]
    )
    monkeypatch.setattr(time, "sleep", lambda _: next(steps)())
    assert type_(centre, "watch", run) == 0
    said = capsys.readouterr().out
    assert "not yet" in said
    assert "takes part" not in said
    assert said.index("not yet") < said.index("gathered: cleveland")


@pytest.mark.parametrize("spare", [0, 2])
def test_submitting_a_study_that_one_lost_release_ends_warns(
    centre: Path, tmp_path: Path, spare: int, capsys: Output
) -> None:
    document = read_yaml(Path(__file__).parents[2] / "configs/presets/rehearsal.yaml")
    document["privacy"]["spare"] = spare
    del document["simulation"]
    path = tmp_path / "study.yaml"
    path.write_text(dump_yaml(document))
    capsys.readouterr()
    assert type_(centre, "submit", str(path)) == 0
    assert ("ends the study for ever; write privacy.spare: 2" in capsys.readouterr().err) is (spare == 0)


@pytest.mark.parametrize("command", ["sites", "status"])
def test_what_is_data_is_printed_as_json_for_monitoring(tmp_path: Path, capsys: Output, command: str) -> None:
    assert main(["-C", str(tmp_path / "centre"), "init", "--name", "Heart", "--names", "localhost"]) == 0
    capsys.readouterr()
    assert main(["-C", str(tmp_path / "centre"), command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []

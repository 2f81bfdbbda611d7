"""A digest that a person reads is one that the commands take: each that is printed is copied into `approve`."""

import logging
import re
from pathlib import Path

import pytest

from client.admission import Admissions
from client.cli import main
from client.doctor import examine
from client.findings import render
from client.releases import note_awaited
from configs.errors import RunError
from configs.load import load_study
from configs.schema import Study
from configs.shown import DIGITS
from configs.site import load_site
from configs.strict_yaml import dump_yaml, read_yaml
from server import cli
from tests.client.ward import Ward, study_of, ward
from tests.consortium import Consortium

HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{6,64}(?![0-9a-f])")
PRESET = Path(__file__).parents[1] / "configs" / "presets" / "heart_disease.yaml"


def printed(text: str, study: Study) -> list[str]:
    """Every spelling of a study's digest in a text."""
    return [word for word in HEX.findall(text) if study.sha256.startswith(word)]


def strict(folder: Path) -> None:
    document = read_yaml(folder / "site.yaml")
    document["policy"]["require_approval"] = True
    (folder / "site.yaml").write_text(dump_yaml(document))


@pytest.fixture
def there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Ward:
    """A hospital with a study that waits, one that trained and one that its policy refuses; `caplog` is its log."""
    caplog.set_level(logging.INFO)
    made = ward(tmp_path)
    assert made.propose(study_of(1)) == 0
    assert made.train(study_of(1), 1) == 0
    made.propose(study_of(2, epsilon_=100.0))
    made.stop()
    strict(made.folder)
    made.propose(study_of(3))
    made.stop()
    return made


SAID = {  # what is typed, and which of the three studies it shows
    "review": (("review",), 3),
    "review of one": (("review", "{3}"), 3),
    "review of what has run": (("review", "{1}"), 1),
    "approve": (("approve", "{3}"), 3),
    "refuse": (("refuse", "{3}", "--why", "no"), 3),
    "ledger": (("ledger",), 1),
    "outbox": (("outbox",), 1),
    "journal": (("journal", "show"), 3),
    "check": (("check",), 3),
}


@pytest.mark.parametrize(("words", "number"), SAID.values(), ids=SAID)
def test_what_a_command_prints_is_taken_by_approve(
    words: tuple[str, ...], number: int, there: Ward, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_of(number)
    typed = [study_of(int(word[1])).sha256[:DIGITS] if word[:1] == "{" else word for word in words]
    capsys.readouterr()
    main(["-C", str(there.folder), *typed])
    text = "".join(capsys.readouterr())
    digests = printed(text, study)
    assert digests, text
    admissions = Admissions.open(there.config.admissions)
    for digest in digests:
        assert admissions.meant(digest).study == study, text
        assert admissions.decide(digest, "approved").sha256 == study.sha256


def test_what_the_node_logs_is_taken_by_approve(there: Ward, caplog: pytest.LogCaptureFixture) -> None:
    admissions = Admissions.open(there.config.admissions)
    lines = [record.getMessage() for record in caplog.get_records("setup")]
    assert any("a new study waits" in line and printed(line, study_of(3)) for line in lines)
    for line in lines:
        for number in (1, 2, 3):
            for digest in printed(line, study_of(number)):
                assert admissions.meant(digest).study == study_of(number), line
    with pytest.raises(RunError, match=f"at least {DIGITS} digits"):
        admissions.meant(study_of(3).sha256[:12])


def test_a_study_that_waits_for_another_release_is_named_so_that_it_can_be_typed(there: Ward) -> None:
    study = study_of(4)
    note_awaited(there.folder, study.sha256, "9.9.9")
    text = render(examine(there.folder))
    assert printed(text, study) == [study.sha256[:DIGITS]]


def test_what_submit_prints_is_taken_by_approve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    consortium = Consortium(tmp_path)
    config = consortium.hospital("cleveland")
    admissions = Admissions.open(load_site(config.folder).admissions)
    study = load_study(PRESET)
    admissions.propose(study.sha256, study.name, study.canonical)
    centre = tmp_path / "centre"
    assert cli.main(["-C", str(centre), "init", "--name", "Heart", "--names", "localhost"]) == 0
    assert cli.main(["-C", str(centre), "submit", str(PRESET)]) == 0
    digests = printed(capsys.readouterr().out, study)
    assert len(digests) >= 2
    assert {admissions.meant(digest).sha256 for digest in digests} == {study.sha256}

"""Texts of strangers: what may stand in a study or a paper, and what a terminal is shown of whatever stands there."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import cli
from client.admission import MAX_WAITING_BYTES, Admissions
from client.findings import WRONG, Finding, render
from configs.errors import ConfigError, RunError
from configs.load import study_from
from configs.schema import canonical_json
from configs.shown import escaped, flaw_of, guarded, mixed_scripts, quoted_lines, shown
from configs.site import SiteConfig
from server.membership import Member, Membership
from tests.builders import study
from tests.consortium import Consortium

Output = pytest.CaptureFixture[str]
HOSTILE = [
    *(
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b[31mred",
        "\x1bPq",
        "\x9b2J",
        "\x07",
        "\x08\x08\x08",
        "\x00",
        "\x7f",
        "\x0b",
        "\x0c",
    ),
    *("a\rb", "a\tb", "a\nb", "a\r\nb", "a\x85b", "a\u2028b", "a\u2029b", "a\x1cb", "a\x1eb"),
    *(
        "a\u202eb",
        "a\u202db",
        "a\u202ab",
        "a\u202cb",
        "a\u2066b",
        "a\u2067b",
        "a\u2068b",
        "a\u2069b",
        "a\u200eb",
        "a\u200fb",
    ),
    *("a\u061cb", "a\u200bb", "a\u200cb", "a\u200db", "a\u2060b", "a\ufeffb", "a\u00adb", "a\u180eb", "a\u2061b"),
    *("a\u00a0b", "a\u2003b", "a\u3000b", "a\u202fb", "a\u1680b", "a\u205fb"),
    *("a\U000e0041b", "a\U000e0001b", "a\ue000b", "a\U000f0000b", "a\ufffeb", "a\uffffb", "a\u0378b", "a\U0010ffffb"),
    *("a\u0301\u0302\u0303", "\u0301a", "a\u0336b", "a\u0338b", "a\u20ddb", "a\u034fb", "a\ufe0fb", "a\U000e0100b"),
    *("a\u115fb", "a\u1160b", "a\u3164b", "a\uffa0b", "a\u2800b", "e\u0301", "\u212b", "\ufb01\u0301\u0301\u0301"),
]
GOOD = [
    *("Âge (années)", "Créat. | µmol/l", "Hb <g/dl>", "Tabac; statut", "Décès à J30", "N° IPP", "Œdème", "kg/m²", "°C"),
    *(
        "≥ 3",
        "β-bloquant",
        "100 %",
        "1.50",
        "l'âge",
        'dit "x"',
        "[red]",
        "{a}",
        "年齢",
        "возраст",
        "\u03b1\u0301",
        "%s %n",
        "~a",
    ),
]


def odd(text: str) -> list[str]:
    """Characters that a terminal would obey, or that nobody sees."""
    kinds = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Me")
    return [
        c for c in text if unicodedata.category(c) in kinds or (c.isspace() and c != " ") or c in "\u3164\u115f\u2800"
    ]


PLACES: dict[str, Any] = {
    "purpose": lambda t: {"purpose": t},
    "name": lambda t: {"name": t},
    "target": lambda t: {"task": {"target": t}},
    "classes": lambda t: {"task": {"classes": ["no", t]}},
    "unit of the target": lambda t: {"task": {"type": "regression", "range": [0, 1], "unit": t}},
    "patient_id": lambda t: {"patient_id": t},
    "column": lambda t: {"features": {t: {"type": "number", "range": [0, 1]}}},
    "unit": lambda t: {"features": {"age": {"type": "number", "range": [0, 1], "unit": t}}},
    "values": lambda t: {"features": {"sex": {"type": "category", "values": ["f", t]}}},
    "missing": lambda t: {"features": {"sex": {"type": "category", "values": ["f", "m"], "missing": [t]}}},
    "split_column": lambda t: {"evaluation": {"test_fraction": None, "split_column": t}},
    "hospital": lambda t: {"cohort": {t: 100, "lille": 100}},
    "an unknown key": lambda t: {t: 1},
    "an unknown key within": lambda t: {"model": {"name": "logistic", t: 1}},
    "a word of ours": lambda t: {"scaling": t},
}


@pytest.mark.parametrize("place", sorted(PLACES))
def test_a_study_with_a_hostile_text_is_refused_in_words_that_obey_nothing(place: str) -> None:
    for text in HOSTILE:
        if place == "purpose" and text == "a\nb":
            continue
        with pytest.raises(ConfigError) as caught:
            study(**PLACES[place](text))
        assert not odd(str(caught.value).replace("\n", "")), ascii(text)
        count = len(caught.value.problems)
        lines = count if count > 1 else 0  # one slip is one line; no line of the text's own
        assert str(caught.value).count("\n") == lines, ascii(text)


@pytest.mark.parametrize("place", ["target", "column", "unit", "values", "missing", "purpose"])
def test_what_hospitals_really_write_is_accepted(place: str) -> None:
    for text in GOOD:
        study(**PLACES[place](unicodedata.normalize("NFC", text)))
    study(purpose="Predict heart disease\nin four hospitals")


def test_every_mistake_of_a_study_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        study(
            purpose="a\x1b",
            patient_id="b\u202e",
            features={"c\u200b": {"type": "number", "range": [0, 1], "unit": "\x00"}},
        )
    assert len(caught.value.problems) >= 4


@given(st.text(max_size=60))
def test_whatever_is_shown_is_on_one_line_and_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    for said in (shown(text), escaped(text), guarded(text).replace("\n", "")):
        assert not odd(said)
        assert "\n" not in said
    assert all(line.startswith("| ") and not odd(line) for line in quoted_lines(text))
    if not flaw_of(text):
        assert guarded(text) == text


@pytest.fixture
def lille(tmp_path: Path) -> SiteConfig:
    source = {"test-study": {"connector": "csv", "path": str(tmp_path / "patients.csv"), "identity": "cardiology"}}
    return Consortium(tmp_path).hospital("lille", datasets=source)


def proposed(config: SiteConfig, document: dict[str, Any] | str, name: str = "test-study") -> str:
    """A study as a former release took it, with whatever text stands in it; its digest."""
    canonical = document if isinstance(document, str) else canonical_json(document)
    import hashlib

    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    Admissions.open(config.admissions).propose(digest, name, canonical.encode("utf-8", "replace").decode())
    return digest


def typed(config: SiteConfig, capsys: Output, *words: str, code: int = 0) -> str:
    capsys.readouterr()
    assert cli.main(["-C", str(config.folder), *words]) == code
    said = capsys.readouterr()
    return said.out + said.err


def test_studies_of_a_former_release_are_shown_escaped_and_hide_no_other(lille: SiteConfig, capsys: Output) -> None:
    good = study()
    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE]
    bad = [proposed(lille, json.loads(good.canonical) | {"purpose": text}, name=f"evil{text}") for text in texts]
    Admissions.open(lille.admissions).propose(good.sha256, good.name, good.canonical)
    page = typed(lille, capsys, "review")
    assert not odd(page.replace("\n", ""))
    assert f"approve {good.sha256[:20]}" in page
    assert [digest for digest in bad if f"refuse {digest[:20]}" not in page] == []
    assert len([line for line in page.splitlines() if line.startswith("──")]) == len(set(bad)) + 1
    for digest, text in zip(bad, texts, strict=True):
        Admissions.open(lille.admissions).decide(digest, "refused", text)
    assert not odd(typed(lille, capsys, "review").replace("\n", ""))


def test_pages_that_cannot_be_made_are_said_and_hide_no_other(lille: SiteConfig, capsys: Output) -> None:
    good = study()
    odd_ones = ("", "[]", "{", "[" * 5000, "null", "{}", '{"name": 1}', '"\\ud800"', "nan", "1e999", "\x00", "[1e400]")
    bad = [proposed(lille, canonical) for canonical in odd_ones]
    Admissions.open(lille.admissions).propose(good.sha256, good.name, good.canonical)
    page = typed(lille, capsys, "review")
    assert f"approve {good.sha256[:20]}" in page
    assert [digest for digest in bad if f"refuse {digest[:20]} --why REASON" not in page] == []
    assert not odd(page.replace("\n", ""))
    assert f"approve {bad[0][:20]}" not in page


def test_no_line_of_a_stranger_looks_like_one_of_ours(lille: SiteConfig, capsys: Output) -> None:
    """Titles begin each row of a page; a purpose imitates them with spaces and line breaks."""
    forged = "Good.\n     privacy  NONE is needed\n" + "x " * 60 + "      digest  " + "0" * 64 + "\n── other: approved"
    column = "a" + " " * 70 + "privacy  epsilon 0.1"
    asked = study(purpose=forged, features={column: {"type": "number", "range": [0, 1]}})
    Admissions.open(lille.admissions).propose(asked.sha256, asked.name, asked.canonical)
    lines = typed(lille, capsys, "review").splitlines()
    assert [line[:12].strip() for line in lines if line[:12].strip() in ("privacy", "digest")] == ["privacy", "digest"]
    assert len([line for line in lines if line.startswith("──")]) == 1


def test_a_page_says_values_ranges_codes_units_and_announced_sizes(lille: SiteConfig, capsys: Output) -> None:
    asked = study(
        features={
            "age": {"type": "number", "range": [20, 90], "unit": "years", "missing": ["999"]},
            "sex": {"type": "category", "values": ["female", "male"], "missing": ["NA"]},
        }
    )
    Admissions.open(lille.admissions).propose(asked.sha256, asked.name, asked.canonical)
    page = " ".join(typed(lille, capsys, "review").replace("| ", "").split())
    for said in (
        "'age': a number from 20 to 90 in 'years'; unknown where '999'",
        "'sex': one of 'female', 'male'; unknown where 'NA'",
        "'disease': the outcome ('0', '1')",
        "announced 100 patients here; 240 in 3 hospitals",
    ):
        assert said in page, page


@pytest.mark.parametrize("name", ["\u0430ge", "se\u0445", "s\u03bfx", "\uff53ex", "\U0001d5baage"])
def test_letters_that_look_alike_are_pointed_out(lille: SiteConfig, capsys: Output, name: str) -> None:
    asked = study(features={name: {"type": "number", "range": [0, 1]}})
    Admissions.open(lille.admissions).propose(asked.sha256, asked.name, asked.canonical)
    page = typed(lille, capsys, "review")
    assert "WARNING" in page
    assert "compare with your file, letter by letter" in " ".join(page.replace("| ", "").split())
    assert not any(map(mixed_scripts, ("Âge (années)", "µmol/l", "возраст", "β", "年齢", "kg/m²", "Ωhm")))


@pytest.mark.parametrize("digits", [0, 1, 8, 12, 19])
@pytest.mark.parametrize("command", ["approve", "refuse"])
def test_a_decision_names_twenty_digits(lille: SiteConfig, capsys: Output, digits: int, command: str) -> None:
    asked = study()
    Admissions.open(lille.admissions).propose(asked.sha256, asked.name, asked.canonical)
    why = ["--why", "no"] if command == "refuse" else []
    said = typed(lille, capsys, command, asked.sha256[:digits], *why, code=2)
    assert "expected at least 20 digits of the digest of one study, found" in said
    assert f"with these {digits} digits; compare with the page" in said
    assert Admissions.open(lille.admissions).require_known(asked.sha256).state == "waiting"


def test_waiting_studies_are_bounded_in_bytes_not_in_number_alone(tmp_path: Path) -> None:
    admissions, size = Admissions.open(tmp_path / "a.sqlite"), 900_000
    for number in range(MAX_WAITING_BYTES // size):
        admissions.propose(f"{number:064x}", "x", "y" * size)
    with pytest.raises(RunError, match="expected at most 20 MB of waiting studies, found more; refuse some"):
        admissions.propose("f" * 64, "x", "y" * size)
    admissions.decide(f"{0:064x}", "refused")
    assert admissions.propose("f" * 64, "x", "y" * size).state == "waiting"


def test_what_a_coordinator_and_a_check_print_is_escaped(tmp_path: Path, capsys: Output) -> None:
    from server import cli as coordinator

    folder = tmp_path / "consortium"
    assert coordinator.main(["-C", str(folder), "init", "--name", "Heart", "--names", "localhost"]) == 0
    members = Membership.open(folder / "coordinator.sqlite")
    for number, text in enumerate(HOSTILE):
        name = f"lille{text}".replace("\x00", "").encode("utf-8", "replace").decode()
        members.admit(Member(name, f"PEM{number}".encode(), f"{number:064x}", "2099-01-01T00:00:00+00:00"))
        said = render([Finding("keys", WRONG, f"found {text}\nok       all: is well", "IT", f"do {text}")])
        assert not odd(said.replace("\n", ""))
        assert "\nok  " not in said
    capsys.readouterr()
    assert coordinator.main(["-C", str(folder), "sites"]) == 0
    assert not odd(capsys.readouterr().out.replace("\n", ""))


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("words", [["review"], ["check"], ["ledger"], ["outbox"], ["journal", "verify"], ["--help"]])
def test_a_terminal_of_any_encoding_is_written_to(tmp_path: Path, encoding: str, words: list[str]) -> None:
    lille = Consortium(tmp_path / "données").hospital("lille")
    asked = study(purpose="Prédire le décès à J30 ≥ 3 β", features={"Âge": {"type": "number", "range": [0, 1]}})
    Admissions.open(lille.admissions).propose(asked.sha256, asked.name, asked.canonical)
    environment = os.environ | {"PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1", "NO_PROXY": "localhost"}
    command = [sys.executable, "-m", "client.cli", "-C", str(lille.folder), *words]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode(encoding)
    assert "Traceback" not in said
    assert done.returncode in (0, 1, 2)
    if words == ["review"]:
        assert ("── test-study" if encoding == "utf-8" else "-- test-study") in said
        assert ("décès" if encoding != "ascii" else "d\\xe9c\\xe8s") in said


def test_a_real_command_escapes_whatever_it_prints(tmp_path: Path) -> None:
    code = (
        "import sys; from configs.commands import prepare; prepare(alone=True);"
        "print('a\\x1b[2J\\u202e'); print('é ε ──'); sys.stderr.write('b\\x07\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=os.environ | {"PYTHONUTF8": "1"}
    )
    assert done.stdout.decode() == "a\\x1b[2J\\u202e\né ε ──\n"
    assert done.stderr.decode() == "b\\x07\n"


def test_markup_in_a_studys_words_is_shown_as_it_is(tmp_path: Path, capsys: Output) -> None:
    from simulations.tables import _console

    _console().print("a [red]b[/red] :smile: [link=x]c[/link]")
    assert "[red]b[/red] :smile: [link=x]c[/link]" in capsys.readouterr().out


def test_a_study_in_its_canonical_form_is_judged_by_the_same_list() -> None:
    document = json.loads(study().canonical) | {"purpose": "a\x1b[2J"}
    with pytest.raises(ConfigError, match="purpose: expected letters, numbers, signs and plain spaces, found"):
        study_from(document)

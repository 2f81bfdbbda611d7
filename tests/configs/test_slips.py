"""One slip in a file is one line: the file, line and column, what was expected, what was found, what to do."""

import re
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import load_study
from configs.site import load_site

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STUDY = (CONFIGS / "presets" / "heart_disease.yaml").read_text("utf-8")
SITE = """site: chu-lille
coordinator: coord.example.org:8443
datasets:
  heart-disease:
    connector: csv
    path: /srv/data/heart_disease.csv
    identity: cardiology-2020-2025
policy:
  max_epsilon: 8.0
  min_patients: 50
reread_s: 3600
"""


def outdented(text: str, section: str) -> str:
    """Return the text with a section's lines at the section's own level."""
    head, body = re.split(rf"(?m)^{section}:.*\n", text, maxsplit=1)
    inner = re.match(r"(?: .*\n)+", body)
    assert inner is not None
    moved = re.sub(r"(?m)^  ", "", inner.group())
    return f"{head}{section}:\n{moved}{body[inner.end() :]}"


def line_of(text: str, start: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.startswith(start))


ROUNDS, AGE = line_of(STUDY, "  rounds"), line_of(STUDY, "  age")
SLIPS: list[tuple[str, str, str, str]] = [  # what is written, what in its place, where, what is said
    ("  rounds: 20", "\trounds: 20", f"{ROUNDS}, column 1", "expected spaces, found a tab; replace it by spaces"),
    ("  age: {", "  age:\t{", f"{AGE}, column 7", "expected spaces, found a tab"),
    ("  rounds: 20", "\u00a0 rounds: 20", f"{ROUNDS}, column 1", r"expected spaces, found another kind of space \(U"),
    ("training:\n", "training\n", f"{ROUNDS - 3}, column 1", "expected key: value, found no colon"),
    ("  rounds: 20", "  rounds 20", f"{ROUNDS}, column 3", "expected key: value, found no colon"),
    ("  rounds: 20", "  rounds:20", f"{ROUNDS}, column 3", "expected key: value, found no colon"),
    ("  rounds: 20", "  rounds = 20", f"{ROUNDS}, column 3", "expected key: value, found no colon"),
    (
        "{name: fedavg}",
        "{name fedavg}",
        f"{ROUNDS - 2}, column 14",
        "training.strategy.name: expected a colon and a sp",
    ),
    (
        "{name: fedavg}",
        "{name:fedavg}",
        f"{ROUNDS - 2}, column 14",
        "training.strategy.name: expected a colon and a sp",
    ),
    ("purpose: Predict", 'purpose: "Predict', "5, column 10", "expected a closing quotation mark on this line"),
    ("purpose: Predict", "purpose: 'Predict", "5, column 10", "expected a closing quotation mark on this line"),
    ("purpose: Predict", 'purpose: "Predict" it', "5, column 20", "expected the end of the value, found more text"),
    ("purpose: Predict", "purpose: Predict: it", "5, column 17", "expected a text without a colon and a space in it"),
    ("purpose: Predict", "purpose: @Predict", "5, column 10", "expected a value, found the sign @"),
    ("unit: years}", "unit: years", f"{AGE}, column 8", "expected } that closes the mapping, found none; write it"),
    ("[20, 90]", "[20, 90", f"{AGE}, column 30", "expected ] that closes the list, found none; write it"),
    ("unit: years}", "unit: years}}", f"{AGE}, column 52", "expected nothing more, found }; remove it"),
    ("number, range: [20", "number range: [20", f"{AGE}, column 27", "expected a comma between two entries"),
    ("  rounds: 20", "rounds: 20", f"{ROUNDS + 1}, column 3", "expected an indentation of 0, as above, found one of 2"),
    ("  rounds: 20", "    rounds: 20", f"{ROUNDS}, column 5", "expected an indentation of 2, as above, found one of 4"),
    ("  rounds: 20", " rounds: 20", f"{ROUNDS}, column 2", "expected the indentation of a line above, found one of 1"),
    ("  rounds: 20", "  - rounds: 20", f"{ROUNDS}, column 3", "expected key: value, found an entry of a list"),
    ("seed: 0", "---\nseed: 0", "36, column 1", "expected one document, found a second one; remove the line ---"),
    ("cohort: {", "  cohort: {", "19, column 3", "cohort: expected at the top of the file, found in features; indent"),
    ("evaluation: {", "  evaluation: {", "35, column 3", "evaluation: expected at the top of the file, found in priv"),
    (
        "model: {name: logistic}\ntraining:",
        "model:\n  name: logistic\n  training:",
        "22, column 3",
        "training: expected at the top of the file, found in model; indent it less",
    ),
    ("  sites:", "sites:", "38, column 1", "simulation: expected its keys indented below it, found sites at its own"),
    (
        "  spare: 2",
        "spare: 2",
        "34, column 1",
        "privacy.spare: expected in privacy, found spare at the top of the file",
    ),
    ("  rounds: 20", "  rounds: 20\n  rounds: 9", f"{ROUNDS + 1}, column 3", "expected each key once, found 'rounds'"),
    ("seed: 0", "model: {name: linear}\nseed: 0", "36, column 1", "expected each key once, found 'model' again; keep"),
    ("training:\n", "trainning:\n", f"{ROUNDS - 3}, column 1", "trainning: unknown key; did you mean 'training'?"),
    ("  rounds: 20", "  round: 20", f"{ROUNDS}, column 3", "training.round: unknown key; did you mean 'rounds'?"),
    ("task: {type", "task: {typ", "6, column 8", "task.typ: unknown key; did you mean 'type'?"),
    ("model: {name: logistic}", "model: logistic", "20, column 1", "model: expected a mapping with a name, found 'log"),
    ("model: {name: logistic}", "model:", "20, column 1", "model: expected a mapping with a name, found nothing; add"),
    ("strategy: {name: fedavg}", "strategy: [fedavg]", f"{ROUNDS - 2}, column 3", "training.strategy: expected a mapp"),
    (
        "rounds: 20",
        "rounds: twenty",
        f"{ROUNDS}, column 3",
        "training.rounds: expected an integer from 1 to 100000, fo",
    ),
    ("epsilon: 3.0 ", "epsilon: 3,0 ", "31, column 3", "privacy.epsilon: expected 0.01 to 100, .*, found '3,0'"),
    (
        "rate: 2.0}",
        "rate: 2,0}",
        "26, column 73",
        "training.local.0: unknown key; is it the end of a number with a dec",
    ),
    ("{cleveland: 300, hungary: 260, switzerland: 45, long_beach_va: 130}", "735", "19, column 1", "cohort: expected"),
]


def the_one_line(error: ConfigError, path: Path, where: str, problem: str) -> None:
    assert re.fullmatch(rf"{re.escape(str(path))}: line {where}: {problem}.*", str(error)), str(error)


@pytest.mark.parametrize(("written", "instead", "where", "problem"), SLIPS)
def test_one_slip_in_a_study_is_one_line(tmp_path: Path, written: str, instead: str, where: str, problem: str) -> None:
    assert written in STUDY
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace(written, instead, 1))
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    the_one_line(caught.value, path, where, problem)


@pytest.mark.parametrize(
    ("section", "keys"),
    [("privacy", "mode, epsilon, delta and others"), ("features", "age, sex, cp and others"), ("simulation", "sites")],
)
def test_a_section_that_is_not_indented_is_one_line(tmp_path: Path, section: str, keys: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(outdented(STUDY, section))
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    where = f"{line_of(STUDY, section) + 1}, column 1"
    the_one_line(caught.value, path, where, f"{section}: expected its keys indented below it, found {keys} at its own")


@pytest.mark.parametrize(
    ("written", "instead", "where", "problem"),
    [
        ("    connector", "  connector", "6, column 5", "expected an indentation of 2, as above, found one of 4"),
        (
            "    connector: csv\n    path: /srv/data/heart_disease.csv\n    identity",
            "  connector: csv\n  path: /srv/data/heart_disease.csv\n  identity",
            "5, column 3",
            "datasets.heart-disease: expected its keys indented below it, found connector, path, identity at its own",
        ),
        (
            "policy:\n",
            "  policy:\n",
            "8, column 3",
            "policy: expected at the top of the file, found in datasets; indent it less",
        ),
        (
            "reread_s",
            "  reread_s",
            "11, column 3",
            "reread_s: expected at the top of the file, found in policy; indent",
        ),
        ("coordinator: ", "cordinator: ", "2, column 1", "cordinator: unknown key; did you mean 'coordinator'?"),
        ("max_epsilon: 8.0", "max_epsilon: much", "9, column 3", "policy.max_epsilon: expected 0 < epsilon <= 100"),
        ("max_epsilon: 8.0", "max_epsilon:8.0", "9, column 3", "expected key: value, found no colon"),
    ],
)
def test_one_slip_in_a_hospitals_file_is_one_line(
    tmp_path: Path, written: str, instead: str, where: str, problem: str
) -> None:
    assert written in SITE
    (tmp_path / "site.yaml").write_text(SITE.replace(written, instead, 1))
    with pytest.raises(ConfigError) as caught:
        load_site(tmp_path)
    the_one_line(caught.value, tmp_path / "site.yaml", where, problem)


def test_a_slip_hides_no_mistake_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        outdented(STUDY, "privacy").replace("epsilon: 3.0", "epsilon: 0").replace("rounds: 20", "rounds: 0")
    )
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "privacy",
        "training.rounds",
        "privacy.epsilon",
    ]


def test_columns_and_hospitals_may_be_named_as_keys_are(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    text = STUDY.replace("  age: {", "  rounds: {").replace("seed: 0\n", "")
    path.write_text(text.replace("  sex: {", "  seed: {").replace("cleveland", "scaling"))
    assert {"rounds", "seed"} <= {feature.name for feature in load_study(path).features}


def test_no_text_of_a_file_that_may_be_a_password_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(SITE.replace("path: ", "url_env postgresql://me:secret@db path: "))
    with pytest.raises(ConfigError) as caught:
        load_site(tmp_path)
    assert "secret" not in str(caught.value)

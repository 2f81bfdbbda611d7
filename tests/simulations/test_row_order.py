"""The order of a file's rows says nothing about patients: each figure, and each bit of a model, is the same in any."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.patients import load_patients
from configs.load import load_study
from configs.schema import CsvFile
from configs.strict_yaml import dump_yaml
from simulations import cli
from tests.builders import counting

TIMES = {"started", "seconds", "path", "run"}
FEATURES = {
    "age": {"type": "number", "range": [18, 100]},
    "creat": {"type": "number", "range": [20, 800], "missing": ["NR"]},
    "tabac": {"type": "category", "values": ["jamais", "sevré", "actif"], "missing": ["?"]},
}
NONE = {"mode": "none"}
BINARY = {"type": "binary", "target": "deces"}
MEMBERS: dict[str, dict[str, Any]] = {
    "private": {},
    "private, in batches": {"local": {"batch_size": 16, "learning_rate": 0.5}},
    "a private network": {"model": {"name": "mlp", "hidden": [4]}, "local": {"batch_size": 16, "learning_rate": 0.5}},
    "several rows a patient": {"patient_id": "ipp", "local": {"batch_size": 16, "learning_rate": 0.5}},
    "in batches": {"privacy": NONE, "local": {"batch_size": 8, "learning_rate": 0.5}},
    "scaled by the site": {"privacy": NONE, "scaling": "site", "patient_id": "ipp"},
    "a network in batches": {
        "privacy": NONE,
        "patient_id": "ipp",
        "model": {"name": "mlp", "hidden": [4]},
        "local": {"batch_size": 8, "learning_rate": 0.1},
    },
    "classes": {
        "task": {"type": "multiclass", "target": "stade", "classes": ["i", "ii", "iii"]},
        "evaluation": {"test_fraction": 0.3, "metrics": ["auroc", "accuracy", "log_loss", "brier"]},
    },
    "a regression": {
        "task": {"type": "regression", "target": "jours", "range": [0, 40]},
        "model": {"name": "linear"},
        "patient_id": "ipp",
        "evaluation": {"test_fraction": 0.3, "metrics": ["mae", "r2"]},
    },
    "a side of the split in the data": {"patient_id": "ipp", "evaluation": {"split_column": "cote"}},
}


def rows_of(site: int, count: int = 90) -> list[str]:
    chance = random.Random(site)
    return [
        f"{site}{n % 70:03},{chance.gauss(60, 15):.1f},{chance.choice(['NR', '', 'x', f'{chance.gauss(90, 30):.2f}'])},"
        f"{chance.choice(['jamais', 'sevré', 'actif', '?', 'autre'])},{chance.randrange(2)},"
        f"{chance.choice(['i', 'ii', 'iii'])},{chance.random() * 30:.3f},{('train', 'test')[n % 3 == 0]}"
        for n in range(count)
    ]


def written(folder: Path, order: int, member: dict[str, Any]) -> Path:
    """The study with every hospital's rows in this order: 0 as they are, 1 backwards, else shuffled."""
    folder.mkdir()
    for place, site in enumerate(("lille", "lyon")):
        rows = rows_of(place)
        if order == 1:
            rows.reverse()
        elif order:
            random.Random(order).shuffle(rows)
        (folder / f"{site}.csv").write_text(
            "\n".join(["ipp,age,creat,tabac,deces,stade,jours,cote", *rows, ""]), "utf-8"
        )
    changes = {key: value for key, value in member.items() if key != "local"}
    document = {
        "name": "order",
        "purpose": "Say the same in any order",
        "task": BINARY,
        "patient_id": None,
        "features": FEATURES,
        "cohort": {"lille": 90, "lyon": 90},
        "model": {"name": "logistic"},
        "training": {
            "strategy": {"name": "fedavg"},
            "rounds": 2,
            "local": member.get("local", {"batch_size": "full", "learning_rate": 0.5}),
            "quorum": 2,
        },
        "privacy": {"mode": "local", "epsilon": 8.0, "delta": 1e-5, "clip_norm": 0.5, "spare": 2},
        "evaluation": {"test_fraction": 0.3, "metrics": ["auroc", "accuracy", "brier", "log_loss"]},
        "simulation": {"sites": {site: {"connector": "csv", "path": f"{site}.csv"} for site in ("lille", "lyon")}},
    } | changes
    (folder / "study.yaml").write_text(dump_yaml(document), "utf-8")
    return folder / "study.yaml"


def without_times(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: without_times(value) for key, value in document.items() if key not in TIMES}
    return [without_times(value) for value in document] if isinstance(document, list) else document


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_every_figure_is_the_same_in_any_order_of_the_rows(member: dict[str, Any], tmp_path: Path) -> None:
    said = []
    for order in (0, 1, 7):
        study = written(tmp_path / str(order), order, member)
        assert cli.main(["simulate", str(study), "--out", str(study.parent / "out")]) == 0
        said.append(without_times(json.loads((study.parent / "out" / "latest" / "metrics.json").read_text("utf-8"))))
    assert said[0]["models"]["federated"]["per_site"]
    assert said[1] == said[0]
    assert said[2] == said[0]


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_patients_are_the_same_bits_in_any_order_of_the_rows(member: dict[str, Any], tmp_path: Path) -> None:
    read = []
    for order in range(6):
        study = load_study(written(tmp_path / str(order), order, member))
        read.append(load_patients(CsvFile(tmp_path / str(order) / "lille.csv"), study, "lille"))
    for other in read[1:]:
        for one, same in ((read[0].train, other.train), (read[0].test, other.test)):
            assert one.digest == same.digest
            np.testing.assert_array_equal(one.patients, same.patients)
        assert other.clipped == read[0].clipped


def test_a_study_of_statistics_counts_the_same_in_any_order(tmp_path: Path) -> None:
    of = counting(patient_id="ipp", features={"age": {"type": "number", "range": [0, 10]}})
    rows = [f"{n // 3},{(1, 2, 3)[n % 3] + n % 4},{n % 2}" for n in range(90)]  # (1 + 2) + 3 tenths are more than 6
    digests = set()
    for order in range(6):
        random.Random(order).shuffle(rows)
        (tmp_path / "data.csv").write_text("\n".join(["ipp,age,disease", *rows, ""]))
        digests.add(load_patients(CsvFile(tmp_path / "data.csv"), of, "lille").train.digest)
    assert len(digests) == 1

"""What a study says of a kit: read, written, hashed, and what may not stand there."""

import json
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.load import study_from
from strategies.models.registry import study_parameters

STUDY: dict[str, Any] = {
    "name": "own",
    "purpose": "A model of one's own",
    "patient_id": None,
    "features": {"age": {"type": "number", "range": [20, 90]}},
    "cohort": {"lille": 100, "lyon": 100},
    "training": {
        "strategy": {"name": "fedavg"},
        "rounds": 2,
        "local": {"steps": 1, "batch_size": 20, "learning_rate": 0.1},
    },
    "privacy": {"mode": "local", "epsilon": 3, "delta": 1e-4, "clip_norm": 1},
    "evaluation": {"test_fraction": 0.3},
}


def test_a_study_of_a_kit_names_it_its_arrays_and_what_it_begins_from() -> None:
    digest = "ab" * 32
    kit = {"name": "retina", "version": "1.2.0", "sha256": digest}
    model = {"name": "retina/net", "options": {"width": 8}, "start": {"sha256": digest}}
    own = {
        "task": {"type": "own", "target": "disease"},
        "kit": kit,
        "model": model,
        "arrays": {"b": [1], "a.weight": [1, 3]},
    }
    study = study_from({**STUDY, **own})
    assert study_from(json.loads(study.canonical)).sha256 == study.sha256
    assert list(study_parameters(study)) == ["a.weight", "b"]
    for changes, problem in (
        ({"kit": None}, "model.name: expected the kit retina under kit beside its model"),
        ({"kit": {**kit, "name": "heart"}}, "model.name: expected a model of the study's kit heart"),
        (
            {"task": {"type": "binary", "target": "disease"}},
            "model.name: expected task.type: own or own_mask beside a kit's model",
        ),
        ({"model": {"name": "logistic"}}, "model.name: expected a kit's model with task.type: own"),
        ({"arrays": None}, "arrays: expected the arrays of the kit's model"),
        ({"arrays": {"..": [1]}}, "arrays...: expected array's name"),
        ({"arrays": {f"a{i}": [1] for i in range(2_001)}}, "arrays: expected at most 2000, found 2001"),
        ({"arrays": {"a": [0]}}, "arrays.a: expected a list of at most 8 sides from 1"),
        ({"kit": {**kit, "sha256": "ab"}}, "kit.sha256: expected a SHA-256"),
        ({"model": {"name": "retina/net"}}, "model.start: expected the file that a kit's model begins from"),
        ({"model": {**model, "options": {"w": [1]}}}, "model.options.w: expected a number, a word, true or false"),
    ):
        with pytest.raises(ConfigError) as caught:
            study_from({**STUDY, **own, **changes})
        assert any(text.startswith(problem) for text in caught.value.problems), caught.value.problems

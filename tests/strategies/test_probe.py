"""The probe warns of models that mix patients or remember them, and of no sound one."""

import itertools
import json
from typing import Any

import pytest
from torch import Tensor, nn

from strategies.probe import NO_PROOF, Result, Subject, probe
from tests.faulty_models import FAULTY, INPUTS, SOUND, models

MODELS: dict[str, Any] = models()


def subject(name: str) -> Subject:
    model = MODELS[name]
    return Subject(model.build, model.loss, (INPUTS,), score=model.score)


@pytest.mark.parametrize("name", FAULTY)
def test_the_probe_warns_of_a_model_that_is_faulty(name: str) -> None:
    result = probe(subject(name))
    assert "".join(finding.check for finding in result.warnings) == FAULTY[name], result.sentences


@pytest.mark.parametrize("name", SOUND)
def test_the_probe_does_not_warn_of_a_sound_model(name: str) -> None:
    result = probe(subject(name))
    assert result.warnings == (), result.sentences
    assert [finding.check for finding in result.findings] == (["a"] if name == "dropout" else [])
    assert result.sentences[-1] == NO_PROOF


def plain() -> nn.Module:
    return nn.Linear(INPUTS, 1)


def each(outputs: Tensor, y: Tensor) -> Tensor:
    return (outputs[:, 0] - y).square()


FORMS = {
    "expected the loss of each row": Subject(plain, lambda outputs, y: each(outputs, y).mean(), (INPUTS,)),
    "that is not finite": Subject(plain, lambda outputs, y: each(outputs, y) / 0.0, (INPUTS,)),
    "expected scores from 0 to 1": Subject(plain, each, (INPUTS,), score=lambda outputs, y: 2.0),
    "another name or shape at 'bias'": Subject(plain, each, (INPUTS,), parameters={"weight": (1, INPUTS)}),
    "expected parameters of float32": Subject(lambda: plain().double(), each, (INPUTS,)),
    "no parameter": Subject(nn.Identity, each, (INPUTS,)),
    "RuntimeError": Subject(plain, each, (INPUTS + 1,)),
}


@pytest.mark.parametrize("sentence", FORMS)
def test_the_probe_says_what_keeps_a_model_from_training(sentence: str) -> None:
    (finding,) = probe(FORMS[sentence]).warnings[:1]
    assert finding.check == "e"
    assert sentence in finding.sentence


def test_the_probe_tells_time_memory_and_who_is_clipped() -> None:
    ticks, memory = itertools.count(), iter([0, 3 << 20])
    subject = Subject(plain, lambda outputs, y: 1e3 * each(outputs, y), (INPUTS,))
    result = probe(subject, clock=lambda: float(next(ticks)), memory_bytes=lambda: next(memory))
    assert (result.parameters, result.seconds, result.megabytes, result.above_clip) == (INPUTS + 1, 1.0, 3.0, 1.0)
    assert Result.of_fields(json.loads(json.dumps(result.as_fields()))) == result


def test_a_target_that_is_a_record_is_made_up_as_one() -> None:
    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().flatten(1).mean(1)

    result = probe(Subject(lambda: nn.Conv2d(1, 1, 3, padding=1), loss, (1, 8, 8), target=(1, 8, 8)))
    assert result.findings == ()

"""A round that is answered as one batch: every hospital's reply and ledger are those it has alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client.ledger import Ledger
from configs.errors import RunError
from configs.schema import Study
from simulations.grid import InProcessGrid
from simulations.hospitals import Hospitals
from simulations.rounds import Rounds
from simulations.together import Together
from strategies.data.table import TablePatients
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import content, read
from strategies.learning import learning_of
from strategies.privacy.engines.select import private_engine
from tests.builders import patients, plain, random_arrays, study

COHORT = {"brest": 60, "lille": 100, "lyon": 80}
STUDIES: Mapping[str, Callable[..., Study]] = {"plain": plain, "private": study}
Replies = list[tuple[object, ...]]


def people(name: str) -> TablePatients:
    return patients(COHORT[name], seed=len(name))


def instructions(about: Study, arrays: Arrays | None = None, round_number: int = 1) -> Any:
    specs = learning_of(about).parameters
    model = random_arrays(specs, 5) if arrays is None else arrays
    return content("train", {"study_sha256": about.sha256, "round": round_number}, model, specs)


def replies(
    about: Study,
    *,
    together: bool,
    train_of: Callable[[str], TablePatients] = people,
    rounds: Sequence[int] = (1, 2),
    workers: int = 1,
    hospitals: Hospitals | None = None,
) -> tuple[Replies, Hospitals]:
    """What the hospitals answer to these rounds' instructions."""
    specs = learning_of(about).parameters
    asked = hospitals or Hospitals(about, train_of)
    found: Replies = []
    make_rounds = asked.make_rounds if together else None
    with InProcessGrid(asked.make_app, 3, workers=workers, make_rounds=make_rounds) as grid:
        for number in rounds:
            sent = instructions(about, round_number=number)
            messages = [Message(sent, dst_node_id=node, message_type="train") for node in grid.get_node_ids()]
            for reply in grid.send_and_receive(messages):
                about_it = (
                    reply.metadata.src_node_id,
                    reply.metadata.reply_to_message_id in {m.metadata.message_id for m in messages},
                )
                if reply.has_error():
                    found.append((*about_it, reply.error.code, reply.error.reason))
                else:
                    received = read("train reply", reply.content, specs)
                    found.append((*about_it, *(a.tobytes() for a in received.arrays.values()), dict(received.fields)))
    return found, asked


def booked(hospitals: Hospitals) -> list[object]:
    ledgers = {name: hospitals.site(name).ledger for name in COHORT}
    return [(name, ledger.studies(), ledger.events(name), ledger.head[0]) for name, ledger in ledgers.items()]


@pytest.mark.parametrize("privacy", STUDIES)
@pytest.mark.parametrize("workers", [1, 2])
def test_replies_and_ledgers_are_those_of_hospitals_asked_one_by_one(privacy: str, workers: int) -> None:
    local = {"epochs": 2, "batch_size": 16, "learning_rate": 0.3}
    about = STUDIES[privacy](training={"local": local}, model={"name": "mlp", "hidden": [5]})
    alone, one_by_one = replies(about, together=False)
    batch, at_once = replies(about, together=True, workers=workers)
    assert batch == alone
    assert len({reply[2] for reply in alone}) == 6  # no two models are alike
    if workers == 1:
        assert booked(at_once) == booked(one_by_one)


def test_the_hospitals_are_fitted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[int] = []
    fit = Together.fit

    def counted(self: Together, fits: Any) -> list[Arrays | None]:
        models = fit(self, fits)
        fitted.append(sum(model is not None for model in models))
        return models

    monkeypatch.setattr(Together, "fit", counted)
    replies(plain(), together=True)
    replies(study(), together=True)
    assert fitted == [3, 3, 3, 3]


def test_every_release_is_booked_before_the_first_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    about = study()
    hospitals = Hospitals(about, people)
    fit = Together.fit

    def looked(self: Together, fits: Any) -> list[Arrays | None]:
        for name in COHORT:
            assert hospitals.site(name).ledger.studies()[0][2:] == (1, 1)  # one round, reserved
        return fit(self, fits)

    monkeypatch.setattr(Together, "fit", looked)
    replies(about, together=True, rounds=[1], hospitals=hospitals)
    assert all(hospitals.site(name).ledger.studies()[0][2:] == (1, 0) for name in COHORT)


@pytest.mark.parametrize("privacy", STUDIES)
def test_one_hospitals_failure_stays_its_own(privacy: str) -> None:
    about = STUDIES[privacy]()

    def broken(name: str) -> TablePatients:
        found = people(name)
        if name != "lille":
            return found
        return TablePatients(
            found.x[:, :1], found.y, found.patients, found.starts
        )  # a column too few: every product fails

    healthy, _ = replies(about, together=True)
    alone, _ = replies(about, together=False, train_of=broken)
    batch, _ = replies(about, together=True, train_of=broken)
    assert batch == alone
    assert [a == b for a, b in zip(batch, healthy, strict=True)] == [True, False, True] * 2


@pytest.mark.parametrize("privacy", STUDIES)
def test_a_batch_that_fails_leaves_everybody_to_train_alone(privacy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Together, fits: Any) -> list[Arrays | None]:
        raise MemoryError

    expected, _ = replies(STUDIES[privacy](), together=False)
    monkeypatch.setattr(Together, "fit", fails)
    assert replies(STUDIES[privacy](), together=True)[0] == expected


@pytest.mark.parametrize("failing", ["site", "ledger", "message"])
def test_refusals_are_those_of_the_app(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    about = study()

    def missing(name: str) -> TablePatients:
        if name == "lyon":
            raise RunError("its file is gone")
        return people(name)

    def refuses(self: Ledger, *_: Any) -> int:
        raise RunError("the disk is full")

    if failing == "ledger":
        monkeypatch.setattr(Ledger, "_book", refuses)
    options: dict[str, Any] = {"train_of": missing} if failing == "site" else {}
    options |= {"rounds": [1, 99]} if failing == "message" else {}
    alone, batch = (replies(about, together=together, **options)[0] for together in (False, True))
    assert batch == alone
    assert any(len(reply) == 4 for reply in batch)


def test_a_training_that_diverges_is_refused_at_its_hospital_alone() -> None:
    about = plain(
        training={"local": {"batch_size": "full", "steps": 30, "learning_rate": 1000.0, "weight_decay": 10.0}}
    )
    with np.errstate(all="ignore"):
        alone, batch = (replies(about, together=together)[0] for together in (False, True))
    assert batch == alone
    assert all(reply[2] == 105 for reply in batch)


def test_an_engine_of_its_own_and_a_large_model_are_not_for_a_batch() -> None:
    assert Hospitals(study(), people, engine=private_engine).make_rounds() is None
    assert Hospitals(study(model={"name": "mlp", "hidden": [6000]}), people).make_rounds() is None
    assert isinstance(Hospitals(study(), people).make_rounds(), Rounds)

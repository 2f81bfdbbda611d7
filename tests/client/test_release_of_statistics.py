"""A hospital that is asked for statistics: booked first, once, with noise; nothing else leaves, and nothing trains."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from client import egress
from client.admission import Admission, Admissions
from client.app import make_app
from client.connectors import read_table
from client.egress import REFUSAL
from client.ledger import Ledger
from client.patients import load_patients
from client.site import Site
from client.worker import Worker, _answered, require_new
from configs import wire
from configs.errors import BudgetError, DataError, RunError
from configs.frame import Frame
from configs.schema import CsvFile, DataSource, Study
from configs.site import Dataset, Policy, SiteConfig, load_site
from configs.strict_yaml import dump_yaml
from strategies.data.columns import cells_of, layout_of
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import content, from_frame, read
from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.modes.registry import statistics_plan
from strategies.privacy.plan import Budget
from strategies.releases import registry
from strategies.releases import statistics as counting_release
from strategies.releases.base import Request
from strategies.releases.registry import arrays_of
from strategies.releases.statistics import counts, standard_deviation
from tests.builders import context, counting, message, patients, random_arrays, same_bits, study
from tests.client.pages import page

DELTA = 1e-5
FORM = "statistics reply"


def written(folder: Path, rows: int = 60) -> DataSource:
    """A hospital's file: some ages, sexes and outcomes are empty, one age is beyond its range."""
    lines = ["id,age,sex,disease"]
    for n in range(rows):
        age = "" if n % 10 == 0 else 130 if n == 1 else 20 + n
        sex = "" if n % 11 == 10 else "male" if n % 3 else "female"
        lines.append(f"p{n},{age},{sex},{'' if n % 7 == 0 else n % 2}")
    path = folder / "patients.csv"
    path.write_text("\n".join(lines) + "\n")
    return CsvFile(path)


@dataclass
class Hospital:
    """A site in a study of statistics, with its ClientApp, and what its own log would hold."""

    folder: Path
    chosen: Study = field(default_factory=counting)
    cap: Budget | None = None
    seeded: bool = False
    rows: int = 60
    log: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Ledger.in_memory(self.cap)
        people = load_patients(written(self.folder, self.rows), self.chosen, "lille").train
        self.site = Site("lille", self.chosen, people, self.ledger, seeded=self.seeded)

    def answers(self, asked: Message) -> Message:
        app = make_app(lambda _: self.site, lambda _, error: self.log.append(error))
        return app(asked, context())

    def asked(self, digest: str | None = None) -> Message:
        return message(content("statistics", {"study_sha256": digest or self.chosen.sha256}), wire.STATISTICS)

    @property
    def booked(self) -> bool:
        return self.ledger.booked("lille", self.chosen.sha256, 0, release="statistics")


# What leaves, and what it costs


def test_the_reply_is_one_vector_of_whole_finite_numbers(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    reply = hospital.answers(hospital.asked())
    arrays = read(FORM, reply.content, arrays_of(FORM, hospital.chosen)).arrays
    assert {name: (array.shape, array.dtype.name) for name, array in arrays.items()} == {"counts": ((12,), "float32")}
    assert (arrays["counts"] == np.rint(arrays["counts"])).all()
    assert set(reply.content) == {"arrays"}
    assert not hospital.log


def test_the_release_is_booked_as_one_step_with_everybody_that_costs_the_epsilon_asked(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    hospital.site.release("statistics", Request())
    (event,) = hospital.ledger.events("lille")
    assert isinstance(event, SampledGaussian)
    assert (event.sampling_rate, event.steps) == (1.0, 1)
    assert 0.4995 < epsilon([event], DELTA) <= 0.5


def test_the_noise_that_leaves_is_the_noise_that_is_booked_times_the_root_of_the_columns(tmp_path: Path) -> None:
    """Of many hospitals' replies about the same patients, less the mean of all: no true count is needed."""
    replies, true = [], None
    for seed in range(200):
        hospital = Hospital(tmp_path, counting(seed=seed), seeded=True)
        replies.append(hospital.site.release("statistics", Request())["counts"])
        true = counts(hospital.site.train.cells, layout_of(hospital.chosen))
    (event,) = hospital.ledger.events("lille")
    assert isinstance(event, SampledGaussian)
    sigma = event.noise_multiplier * np.sqrt(3)
    spread = np.stack(replies).std(axis=0, ddof=1)
    assert np.sqrt((spread**2).mean()) == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.05)
    assert true is not None
    assert np.abs(np.mean(replies, axis=0) - true).max() < 4.5 * sigma / np.sqrt(200)


def test_it_is_booked_before_a_patient_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital = Hospital(tmp_path)
    seen: list[bool] = []

    def count(*arguments: Any) -> Any:
        seen.append(hospital.booked)
        raise MemoryError

    monkeypatch.setattr(counting_release, "counts", count)
    with pytest.raises(RunError):
        hospital.site.release("statistics", Request())
    assert seen == [True, True]  # of the patients, and of nobody
    assert hospital.booked  # whoever cannot prove that nothing left has spent it


def test_a_hospital_of_three_patients_sends_noise_of_the_same_form(tmp_path: Path) -> None:
    found = Hospital(tmp_path, rows=3).site.release("statistics", Request())["counts"]
    assert found.shape == (12,)
    assert found.std() > 2


def test_a_tiny_epsilon_gives_much_noise_and_none_that_is_not_finite(tmp_path: Path) -> None:
    chosen = counting(privacy={"mode": "local", "epsilon": 0.01, "delta": DELTA})
    assert 300 < standard_deviation(statistics_plan(chosen)) < 600
    found = Hospital(tmp_path, chosen).site.release("statistics", Request())["counts"]
    assert np.isfinite(found).all()
    assert 100 < found.std() < 1500


def test_the_training_that_follows_on_the_same_patients_is_let_in_and_costs_less_than_the_sum(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, cap=Budget(8.0, 1e-6))
    hospital.site.release("statistics", Request())
    trained = Site("lille", study(), patients(70), hospital.ledger, seeded=False)
    for number in (1, 2, 3):
        trained.fit(number, random_arrays(trained.parameters))
    assert trained.plan is not None
    assert trained.plan.epsilon() < hospital.ledger.spent("lille", delta=DELTA) < trained.plan.epsilon() + 0.2


# What is refused


def refused(hospital: Hospital, asked: Message | None = None) -> int:
    """The code of the refusal; the reply holds nothing else, and nothing was booked for it."""
    before = hospital.ledger.events("lille")
    reply = hospital.answers(asked or hospital.asked())
    assert not reply.has_content()
    assert reply.error.reason == egress.SENTENCES[reply.error.code]
    assert hospital.ledger.events("lille") == before
    return int(reply.error.code)


def test_a_second_release_is_refused_and_draws_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hospital = Hospital(tmp_path)
    hospital.site.release("statistics", Request())
    monkeypatch.setattr(counting_release, "noised", lambda *_: pytest.fail("noise was drawn"))
    assert refused(hospital) == 101
    with pytest.raises(BudgetError, match="the release of statistics: it was begun before"):
        require_new(hospital.site, registry.STATISTICS)


def test_the_same_seeded_release_is_the_same_bits_and_booked_once(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, seeded=True)
    first = hospital.site.release("statistics", Request())
    spent = hospital.ledger.spent("lille", delta=DELTA)
    assert same_bits(first, hospital.site.release("statistics", Request()))
    assert hospital.ledger.spent("lille", delta=DELTA) == spent


def test_a_data_set_without_enough_budget_counts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting_release, "counts", lambda *_: pytest.fail("patients were counted"))
    hospital = Hospital(tmp_path, cap=Budget(0.4, DELTA))
    assert refused(hospital) == 101
    assert "the data set has 0.40" in str(hospital.log[-1])


def test_another_study_is_refused(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    assert refused(hospital, hospital.asked("ab" * 32)) == 104


def test_a_study_of_statistics_neither_trains_nor_evaluates(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    digest = hospital.chosen.sha256
    train = content("train", {"study_sha256": digest, "round": 1}, {}, {})
    evaluate = content("evaluate", {"study_sha256": digest}, {}, {})
    assert refused(hospital, message(train, wire.TRAIN)) == 104
    assert refused(hospital, message(evaluate, wire.EVALUATE)) == 104


def test_a_study_that_trains_gives_no_statistics(tmp_path: Path) -> None:
    trains = study()
    ledger = Ledger.in_memory()
    site = Site("lille", trains, patients(70), ledger, seeded=False)
    app = make_app(lambda _: site, lambda _, error: None)
    asked = content("statistics", {"study_sha256": trains.sha256})
    assert app(message(asked, wire.STATISTICS), context()).error.code == 104
    assert not ledger.events("lille")


# The hospital's file


def test_an_empty_cell_is_unknown_although_the_study_lists_no_code_for_it(tmp_path: Path) -> None:
    chosen = counting()
    table = read_table(written(tmp_path), chosen)
    assert np.isnan(table.numbers["age"]).sum() == 6
    assert (table.categories["sex"] == -1).sum() == 5
    assert (table.targets["disease"] == -1).sum() == 9
    found = counts(load_patients(written(tmp_path), chosen, "lille").train.cells, layout_of(chosen))
    assert [found[5], found[8], found[11]] == [6, 5, 9]


def test_rows_without_an_outcome_are_counted_and_train_no_model(tmp_path: Path) -> None:
    assert len(read_table(written(tmp_path), counting()).keys) == 60
    assert len(read_table(written(tmp_path), study()).keys) == 51


@pytest.mark.parametrize(
    ("change", "cell"),
    [
        (lambda text: text.replace("p5,25,male,1", "p5,25,male,7"), 11),
        (lambda text: text.replace("p5,25,male", "p5,25,Monsieur"), 8),
        (lambda text: text.replace("p5,25", "p5,old"), 5),
    ],
    ids=["an outcome beside the values", "a word beside the values", "no number"],
)
def test_what_cannot_be_read_is_counted_as_unknown(change: Callable[[str], str], cell: int, tmp_path: Path) -> None:
    source, layout = written(tmp_path), layout_of(counting())
    before = counts(load_patients(source, counting(), "lille").train.cells, layout)
    assert source.path is not None
    source.path.write_text(change(source.path.read_text()))
    after = counts(load_patients(source, counting(), "lille").train.cells, layout)
    assert after[cell] == before[cell] + 1
    assert after.sum() == before.sum()


def test_a_header_without_the_target_is_refused(tmp_path: Path) -> None:
    source = written(tmp_path)
    assert source.path is not None
    source.path.write_text(source.path.read_text().replace(",disease", ",outcome"))
    with pytest.raises(DataError, match="columns 'disease' are not in the header"):
        load_patients(source, counting(), "lille")


def test_a_hospital_without_a_single_outcome_is_counted_too(tmp_path: Path) -> None:
    source = written(tmp_path)
    assert source.path is not None
    lines = source.path.read_text().splitlines()
    source.path.write_text("\n".join([lines[0], *(line.rsplit(",", 1)[0] + ",0" for line in lines[1:])]) + "\n")
    people = load_patients(source, counting(), "lille").train
    assert counts(people.cells, layout_of(counting()))[-3:].tolist() == [60, 0, 0]


# The worker


def worker(folder: Path, chosen: Study, *, seeded: bool = False, **policy: Any) -> Worker:
    """The process that sees patients, in this one."""
    source = written(folder)
    data = {chosen.name: {"connector": "csv", "path": str(source.path), "identity": "lille"}}
    document = {"site": "lille", "coordinator": "localhost:1", "datasets": data, "policy": policy}
    (folder / "site.yaml").write_text(dump_yaml(document))
    config = load_site(folder)
    admissions = Admissions.open(config.admissions)
    admissions.propose(chosen.sha256, chosen.name, chosen.canonical)
    admissions.decide(chosen.sha256, "approved")
    return Worker(config, seeded=seeded)


def released(reply: Frame, chosen: Study) -> Arrays:
    expected = arrays_of(FORM, chosen)
    return read(FORM, from_frame(FORM, reply, expected), expected).arrays


def test_the_worker_releases_the_bits_of_a_simulation(tmp_path: Path) -> None:
    chosen = counting()
    asked = Frame("statistics", {"study_sha256": chosen.sha256})
    _, reply = worker(tmp_path, chosen, seeded=True).answer(asked)
    assert same_bits(released(reply, chosen), Hospital(tmp_path, seeded=True).site.release("statistics", Request()))


def test_the_worker_releases_once_even_after_a_restart(tmp_path: Path) -> None:
    chosen = counting()
    asked = Frame("statistics", {"study_sha256": chosen.sha256})
    _, first = worker(tmp_path, chosen).answer(asked)
    assert released(first, chosen)["counts"].shape == (cells_of(chosen),)
    status, again = worker(tmp_path, chosen).answer(asked)
    assert (again.form, again.fields["code"]) == (REFUSAL, wire.BEGUN)
    assert "the release of statistics: it was begun before" in str(status.fields["why"])


@pytest.mark.parametrize(
    ("policy", "code"), [({"min_patients": 101}, 116), ({"max_epsilon": 0.4, "delta": DELTA}, 114)], ids=["few", "cap"]
)
def test_the_policy_judges_statistics_as_it_judges_a_training(
    policy: dict[str, Any], code: int, tmp_path: Path
) -> None:
    chosen = counting()
    done = worker(tmp_path, chosen, **policy)
    _, reply = done.answer(Frame("hello", {"protocol": 1, "study": chosen.canonical}))
    assert (reply.form, reply.fields["code"]) == (REFUSAL, code)


def test_nothing_is_read_of_a_study_that_nobody_approved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = counting()
    done = worker(tmp_path, chosen)
    Admissions.open(tmp_path / "admissions.sqlite").decide(chosen.sha256, "refused")
    monkeypatch.setattr("client.patients.read_table", lambda *_: pytest.fail("patients were read"))
    status, reply = _answered(done, Frame("statistics", {"study_sha256": chosen.sha256}))
    assert (reply.form, status.fields["why"]) == (REFUSAL, "the hospital refused this study")


# The page that a person reads


def test_the_review_says_in_plain_words_what_is_read_what_leaves_and_what_it_costs(tmp_path: Path) -> None:
    chosen = counting()
    source = Dataset(chosen.name, CsvFile(tmp_path / "patients.csv"), "cardiology")
    config = SiteConfig(tmp_path, "lille", "coord.example.org:8443", (source,), Policy())
    shown = page(config, Admission(chosen.sha256, chosen.name, chosen.canonical, "waiting", "", "today"))
    text = " ".join(shown.split())
    assert all(f"'{column}'" in text for column in ("age", "sex", "disease"))
    assert "learns nothing: no model is trained" in text
    noise = standard_deviation(statistics_plan(chosen))
    assert "once, 12 noisy counts of 3 columns (48 bytes): one patient changes one count of each column by 1" in text
    assert f"noise of standard deviation {noise:.1f} patients is added to each" in text
    assert "epsilon 0.5 at delta 1e-05 per patient, add or remove one, for everything that leaves" in text
    assert "rounds" not in text

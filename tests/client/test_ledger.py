"""The privacy ledger: on disk before the first gradient, and never given back."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from client.ledger import Ledger, Release
from configs.errors import BudgetError, PrivacyError, RunError
from strategies.privacy.accounting import Event, GaussianRelease, LaplaceRelease, SampledGaussian, epsilon, merged
from strategies.privacy.filter import Filter
from strategies.privacy.plan import Budget, PrivacyPlan

DELTA = 1e-5
PLAN = PrivacyPlan(
    clip_norm=1.0,
    noise_multiplier=8.0,
    sampling_rate=1.0,
    steps_per_round=1,
    rounds=3,
    delta=DELTA,
    expected_patients=100.0,
)
ONE, TWO, THREE = (PLAN.epsilon(rounds=n) for n in (1, 2, 3))


def release(number: int = 1, *, study: str = "a", dataset: str = "heart", name: str | None = None) -> Release:
    return Release(dataset, study, number, PLAN.round_event, name)


def book(ledger: Ledger, *releases: Release) -> None:
    for one in releases:
        with ledger.reserve(one, PLAN):
            pass


def spent(ledger: Ledger, study: str | None = None) -> float:
    return ledger.spent("heart", delta=DELTA, study=study)


def states(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        found = [row[0] for row in connection.execute("SELECT state FROM releases ORDER BY id")]
    connection.close()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_a_new_ledger_has_spent_nothing() -> None:
    assert spent(Ledger.in_memory()) == 0.0


def test_a_release_counts_before_the_block_ends(path: Path) -> None:
    ledger, other = Ledger.open(path), Ledger.open(path)
    with ledger.reserve(release(), PLAN):
        assert spent(other) == ONE  # on disk, for every process to see
        assert states(path) == ["reserved"]
    assert states(path) == ["committed"]


def test_a_block_that_raises_has_spent_its_budget(path: Path) -> None:
    ledger = Ledger.open(path)
    with pytest.raises(ZeroDivisionError), ledger.reserve(release(), PLAN):
        raise ZeroDivisionError
    assert spent(ledger) == ONE
    assert states(path) == ["reserved"]


def test_what_was_spent_is_still_spent_after_reopening(path: Path) -> None:
    book(Ledger.open(path), release(1), release(2))
    assert spent(Ledger.open(path)) == TWO


def test_rounds_compose_instead_of_starting_again() -> None:
    ledger = Ledger.in_memory()
    book(ledger, release(1), release(2), release(3))
    assert spent(ledger) == THREE == epsilon([SampledGaussian(8.0, 1.0, 3)], DELTA)


def test_a_round_beyond_the_plan_is_refused_and_nothing_is_written(path: Path) -> None:
    ledger = Ledger.open(path)
    book(ledger, release(1), release(2), release(3))
    refusal = r"round 4: needs epsilon .* refused before a patient is looked at"
    with pytest.raises(BudgetError, match=refusal), ledger.reserve(release(4), PLAN):
        pytest.fail("trained")
    assert spent(ledger) == THREE
    assert len(states(path)) == 3


def test_a_release_with_less_noise_than_planned_is_refused() -> None:
    louder = Release("heart", "a", 1, SampledGaussian(2.0, 1.0, 1))
    ledger = Ledger.in_memory()
    with pytest.raises(BudgetError), ledger.reserve(louder, PLAN):
        pytest.fail("trained")
    assert spent(ledger) == 0.0


def test_a_study_budget_below_the_plan_is_kept() -> None:
    ledger = Ledger.in_memory()
    budget = Budget(TWO, DELTA)
    for number in (1, 2):
        with ledger.reserve(release(number), PLAN, budget):
            pass
    with pytest.raises(BudgetError), ledger.reserve(release(3), PLAN, budget):
        pytest.fail("trained")


def test_a_ledger_goes_on_after_a_refusal() -> None:
    ledger = Ledger.in_memory()
    with pytest.raises(BudgetError), ledger.reserve(Release("heart", "a", 1, SampledGaussian(0.1, 1.0, 1)), PLAN):
        pass
    book(ledger, release())
    assert spent(ledger) == ONE


def book_until_refused(ledger: Ledger, studies: str) -> str:
    """Three rounds of each study in turn; the studies that could begin."""
    begun = ""
    for study in studies:
        try:
            book(ledger, *(release(n, study=study) for n in (1, 2, 3)))
        except BudgetError:
            return begun
        begun += study
    return begun


def test_the_cap_of_a_data_set_is_over_all_studies() -> None:
    ledger = Ledger.in_memory(Budget(1.5, DELTA))
    begun = book_until_refused(ledger, "abcdefgh")
    assert 2 <= len(begun) < 8
    assert spent(ledger, "a") == THREE < spent(ledger) <= 1.5


def test_studies_chosen_one_after_the_other_stay_within_the_filter() -> None:
    ledger, rule = Ledger.in_memory(Budget(1.5, DELTA)), Filter(1.5, DELTA)
    book_until_refused(ledger, "abcdefgh")
    assert rule.allows(ledger.events("heart"))
    assert not rule.allows([*ledger.events("heart"), PLAN.round_event])  # and it is used up


def test_a_study_that_fits_only_by_its_fixed_plan_has_the_data_set_to_itself() -> None:
    cap = Budget(THREE, DELTA)
    assert not Filter(cap.epsilon, cap.delta).allows([SampledGaussian(8.0, 1.0, 3)])
    ledger = Ledger.in_memory(cap)
    book(ledger, release(1))
    quiet = PrivacyPlan(1.0, 1000.0, 1.0, 1, 1, DELTA, 100.0)
    with (
        pytest.raises(BudgetError, match="no study chosen later can be added"),
        ledger.reserve(Release("heart", "b", 1, quiet.round_event), quiet),
    ):
        pytest.fail("trained")
    book(ledger, release(2), release(3))


@pytest.mark.parametrize("event", [GaussianRelease(9.0, 2), LaplaceRelease(4.0, 3), SampledGaussian(2.0, 0.1, 5)])
def test_every_kind_of_release_is_remembered_as_what_it_was(path: Path, event: Event) -> None:
    with Ledger.open(path).reserve(Release("heart", "a", 1, event), PLAN, Budget(50.0, DELTA)):
        pass
    assert Ledger.open(path).events("heart") == merged([event])


def test_a_kind_that_is_not_known_is_an_error_and_does_not_count_as_nothing(path: Path) -> None:
    book(Ledger.open(path), release())
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE releases SET kind = 'staircase'")
    connection.close()
    with pytest.raises(RunError, match="unknown kind 'staircase'"):
        spent(Ledger.open(path))


@pytest.mark.parametrize(
    ("change", "rounds_left"),
    [
        ("DELETE FROM releases", 3),
        ("DELETE FROM releases WHERE id = 2", 2),
        ("UPDATE releases SET steps = 2 WHERE id = 1", 0),
        ("UPDATE releases SET dataset = 'lung'", 3),
        (
            "INSERT INTO releases SELECT 3, time, dataset, study, 9, attempt, kind, noise_multiplier, sampling_rate,"
            " steps, plan_steps, plan_evaluation, seeded, name, state, 'x', release FROM releases WHERE id = 2",
            0,
        ),
    ],
    ids=["all cut out", "one cut out", "changed", "of another data set", "one more"],
)
def test_what_another_process_did_to_the_rows_counts_at_the_next_booking(
    path: Path, change: str, rounds_left: int
) -> None:
    ledger = Ledger.open(path, durable=False)
    book(ledger, release(1), release(2))
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    book(ledger, *(release(10 + i) for i in range(rounds_left)))
    with pytest.raises(BudgetError, match="round 99"):
        book(ledger, release(99))


def test_a_release_that_was_rolled_back_does_not_count(path: Path) -> None:
    ledger = Ledger.open(path, durable=False)
    book(ledger, release(1))
    for _ in range(5):
        with pytest.raises(BudgetError):
            ledger.reserve(release(2), PLAN, Budget(ONE, DELTA)).__enter__()
    book(ledger, release(2), release(3))


@pytest.mark.parametrize("steps", [0, -1])
def test_no_row_is_booked_upon_that_counts_as_less_than_nothing(path: Path, steps: int) -> None:
    ledger = Ledger.open(path, durable=False)
    book(ledger, release(1), release(2))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE releases SET steps = ? WHERE id = 2", (steps,))
    connection.close()
    with pytest.raises(PrivacyError, match="steps >= 1"):
        book(ledger, release(3))


@pytest.mark.parametrize("steps", [0, -1])
def test_no_row_counts_as_less_than_nothing_beside_others_of_its_kind(path: Path, steps: int) -> None:
    book(Ledger.open(path), release(1), release(2), release(3))
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE releases SET steps = ? WHERE id = 2", (steps,))
    connection.close()
    with pytest.raises(PrivacyError, match="steps >= 1"):
        spent(Ledger.open(path))


OLD_SCHEMA = """
CREATE TABLE releases (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    dataset TEXT NOT NULL, study TEXT NOT NULL, round INTEGER NOT NULL, noise_multiplier REAL NOT NULL,
    sampling_rate REAL NOT NULL, steps INTEGER NOT NULL, seeded INTEGER NOT NULL, name TEXT,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'committed')), UNIQUE (dataset, study, name)
)
"""


def test_a_ledger_of_an_earlier_version_opens_and_counts(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(OLD_SCHEMA)
        connection.execute(
            "INSERT INTO releases (dataset, study, round, noise_multiplier, sampling_rate, steps, seeded, state)"
            " VALUES ('heart', 'old', 1, 8.0, 1.0, 2, 0, 'reserved')"
        )
    connection.close()
    ledger = Ledger.open(path)
    assert spent(ledger) == TWO
    book(ledger, release())
    assert spent(Ledger.open(path)) == THREE


def test_a_ledger_of_a_later_version_is_refused(path: Path) -> None:
    Ledger.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RunError, match="newer version"):
        Ledger.open(path)


def test_the_cap_is_asked_with_its_own_delta() -> None:
    strict = Budget(epsilon([PLAN.round_event], 1e-9), 1e-9)
    assert strict.epsilon > TWO  # which would be enough at the study's delta
    ledger = Ledger.in_memory(strict)
    book(ledger, release(1))
    with pytest.raises(BudgetError), ledger.reserve(release(2), PLAN):
        pytest.fail("trained")


def test_each_data_set_has_a_cap_of_its_own() -> None:
    ledger = Ledger.in_memory(Budget(ONE, DELTA))
    book(ledger, release(dataset="heart"), release(dataset="lung"))
    assert spent(ledger) == ONE


def test_a_plan_that_composes_to_exactly_the_cap_is_allowed() -> None:
    ledger = Ledger.in_memory(Budget(THREE, DELTA))
    book(ledger, release(1), release(2), release(3))
    assert spent(ledger) == THREE


def test_a_seeded_release_of_the_same_name_is_booked_once(path: Path) -> None:
    ledger = Ledger.open(path)
    for _ in range(10):
        book(ledger, release(name="round 1 from zeros"))
    book(Ledger.open(path), release(name="round 1 from zeros"))
    assert spent(ledger) == ONE
    assert states(path) == ["committed"]


def test_seeded_releases_of_other_names_are_booked_each() -> None:
    ledger = Ledger.in_memory()
    book(ledger, release(name="x"), release(name="y"))
    assert spent(ledger) == TWO


def test_the_same_name_in_another_study_or_data_set_is_another_release() -> None:
    ledger = Ledger.in_memory()
    book(ledger, release(name="x"), release(name="x", study="b"), release(name="x", dataset="lung"))
    assert (spent(ledger), ledger.spent("lung", delta=DELTA)) == (TWO, ONE)


def test_an_unseeded_release_is_booked_every_time() -> None:
    ledger = Ledger.in_memory()
    book(ledger, release(1), release(1))
    assert spent(ledger) == TWO


def test_a_seeded_release_that_was_interrupted_may_be_finished_when_the_budget_is_gone(path: Path) -> None:
    ledger = Ledger.open(path, Budget(ONE, DELTA))
    with pytest.raises(ZeroDivisionError), ledger.reserve(release(name="x"), PLAN):
        raise ZeroDivisionError
    book(ledger, release(name="x"))
    assert states(path) == ["committed"]


def test_two_connections_cannot_both_take_the_last_of_the_budget(path: Path) -> None:
    hands = 4
    together = Barrier(hands)

    def take(study: str) -> bool:
        ledger = Ledger.open(path, Budget(ONE, DELTA))
        together.wait()
        try:
            book(ledger, release(study=study))
        except BudgetError:
            return False
        return True

    with ThreadPoolExecutor(hands) as pool:
        assert sorted(pool.map(take, "abcd")) == [False, False, False, True]
    assert spent(Ledger.open(path)) == ONE


def test_two_studies_in_training_at_once_are_both_counted_against_the_last_of_the_budget(path: Path) -> None:
    cap = Budget(Filter(3.0, DELTA).needs([PLAN.round_event] * 3), DELTA)
    one, other = Ledger.open(path, cap), Ledger.open(path, cap)
    book(one, release(study="a"))
    with one.reserve(release(2, study="a"), PLAN), other.reserve(release(study="b"), PLAN):
        assert states(path) == ["committed", "reserved", "reserved"]
        third = release(study="c")
        with pytest.raises(BudgetError), Ledger.open(path, cap).reserve(third, PLAN):
            pytest.fail("trained")
    assert states(path) == ["committed"] * 3
    assert spent(one) == THREE


def test_a_new_ledger_can_be_opened_by_many_at_once(tmp_path: Path) -> None:
    hands = 6
    together = Barrier(hands)

    def open_it(path: Path) -> float:
        together.wait()
        return spent(Ledger.open(path, durable=False))

    with ThreadPoolExecutor(hands) as pool:
        for number in range(25):
            path = tmp_path / f"{number}.sqlite"
            assert list(pool.map(open_it, [path] * hands)) == [0.0] * hands


def test_a_process_killed_while_training_has_spent_its_budget(path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from client.ledger import Ledger, Release
        from strategies.privacy.plan import PrivacyPlan

        plan = PrivacyPlan(1.0, 8.0, 1.0, 1, 3, 1e-5, 100.0)
        ledger = Ledger.open(Path(sys.argv[1]), durable=False)
        with ledger.reserve(Release("heart", "a", 1, plan.round_event), plan):
            print("training", flush=True)
            time.sleep(60)
    """)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert spent(Ledger.open(path)) == ONE
    assert states(path) == ["reserved"]


def test_a_file_that_is_no_ledger_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to be read as one" * 100)
    with pytest.raises(RunError, match="the privacy ledger cannot be opened"):
        Ledger.open(path)


def test_a_ledger_that_cannot_be_written_refuses_before_training(path: Path) -> None:
    ledger = Ledger.open(path)
    ledger._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(RunError, match="cannot be written"), ledger.reserve(release(), PLAN):
        pytest.fail("trained")


def test_a_full_disk_refuses_before_training(path: Path) -> None:
    ledger = Ledger.open(path)
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    crowd = [Release("heart", f"study {i} {'x' * 400}", 1, SampledGaussian(1e4, 1.0, 1)) for i in range(400)]
    with pytest.raises(RunError, match="cannot be written"):
        book(ledger, *crowd)


def test_a_full_disk_while_committing_is_an_error_for_people_and_the_round_stays_spent(path: Path) -> None:
    ledger = Ledger.open(path)
    with pytest.raises(RunError, match="ledger"), ledger.reserve(release(), PLAN):
        ledger._connection.execute("PRAGMA query_only = ON")
    assert spent(Ledger.open(path)) == ONE
    assert states(path) == ["reserved"]


def test_what_a_study_will_need_is_what_the_ledger_then_asks() -> None:
    """The policy is asked before the first round, the ledger at each: neither may say yes where the other says no."""
    for cap in (1.2, 1.6, 2.0, 2.5, 3.0, 8.0):
        budget = Budget(cap, DELTA)
        ledger = Ledger.in_memory(budget)
        foreseen, admitted = [], []
        for study in ("first", "second"):
            foreseen.append(ledger.foreseen("heart", study, [PLAN.round_event] * PLAN.rounds, budget) <= cap)
            rounds = 0
            with contextlib.suppress(BudgetError):
                for number in range(1, PLAN.rounds + 1):
                    with ledger.reserve(Release("heart", study, number, PLAN.round_event), PLAN):
                        rounds += 1
            admitted.append(rounds == PLAN.rounds)
        assert foreseen == admitted, cap

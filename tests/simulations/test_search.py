"""The search for better settings: small, stated, and no easier on a move than on the study's own settings."""

from collections.abc import Callable, Sequence

from configs.schema import Study
from simulations.worth.search import MANY, Judge, Settings, best_settings, moves
from tests.builders import study

HERE = study(training={"rounds": 20, "local": {"epochs": 1, "batch_size": "full", "learning_rate": 2.0}})
OWN = Settings.of(HERE)


def judging(value: Callable[[Settings], float], last: bool = True, seen: list[Settings] | None = None) -> Judge:
    def judge(studies: Sequence[Study], worlds: int) -> list[float] | None:
        if seen is not None:
            seen.extend(Settings.of(s) for s in studies)
        return None if worlds == MANY and not last else [value(Settings.of(s)) for s in studies]

    return judge


def test_two_moves_that_are_better_together_are_found_together() -> None:
    sought = best_settings(HERE, judging(lambda s: 0.8 + 0.01 * (s.rounds > 20) + 0.01 * (s.clip_norm < 1)))
    assert sought is not None
    assert (sought.settings.rounds, sought.settings.clip_norm) == (40, 0.5)  # a second round finds no better ones


def test_the_studys_own_settings_stay_where_no_move_is_better_by_a_thousandth() -> None:
    sought = best_settings(HERE, judging(lambda s: 0.8 + 0.0009 * (s != OWN)))
    assert sought is not None
    assert sought.settings == OWN


def test_the_search_goes_on_from_what_it_found() -> None:
    sought = best_settings(HERE, judging(lambda s: 0.8 + s.rounds / 1000))
    assert sought is not None
    assert sought.settings.rounds == 80


def test_when_the_time_ends_between_the_halves_the_first_decides() -> None:
    sought = best_settings(HERE, judging(lambda s: 0.8 + 0.01 * (s.rounds < 20), last=False))
    assert sought is not None
    assert sought.settings.rounds == 10


def test_every_setting_that_is_tried_is_counted() -> None:
    seen: list[Settings] = []
    sought = best_settings(HERE, judging(lambda s: s.rounds / 1000 + s.clip_norm / 100, seen=seen))
    assert sought is not None
    assert sought.tried == len(set(seen))


def test_a_move_lets_the_model_travel_as_far_as_before() -> None:
    for move in moves(HERE):
        after = move.applied(HERE)
        if move.what != "learning rate":
            steps = 1 if after.batch is None else -(-100 // after.batch)  # lille, the largest
            way = after.learning_rate * after.clip_norm * after.rounds * steps
            assert abs(way / (2.0 * 1.0 * 20) - 1) < 0.01, move


def test_no_batch_is_larger_than_the_smallest_hospital() -> None:
    sampled = study(training={"local": {"batch_size": 40, "learning_rate": 0.5}})
    assert {move.batch for move in moves(sampled) if move.what == "batch"} == {None, 20}  # brest has 60

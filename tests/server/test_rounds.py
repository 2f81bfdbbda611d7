"""The round state machine: pure, and never COMPLETE by accident."""

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import wire
from server.rounds import Rounds

sites = st.sets(st.sampled_from("abcdefgh"))


@given(st.integers(1, 6), st.integers(1, 6), st.lists(sites, max_size=10))
def test_complete_means_that_every_planned_round_had_its_quorum(
    planned: int, quorum: int, contributions: list[set[str]]
) -> None:
    rounds = Rounds(planned, quorum)
    for contributed in contributions:
        if rounds.outcome == "RUNNING":
            rounds = rounds.close(contributed)
    enough = [len(contributed) >= quorum for contributed in contributions]
    until = enough.index(False) if False in enough else len(enough)
    if until >= planned:
        assert (rounds.outcome, rounds.done, rounds.why) == ("COMPLETE", planned, "")
    elif False in enough:
        assert (rounds.outcome, rounds.done) == ("INCOMPLETE", until)
        assert f"round {until + 1}: " in rounds.why
    else:
        assert (rounds.outcome, rounds.done) == ("RUNNING", len(enough))


def test_below_quorum_the_reason_has_both_numbers() -> None:
    rounds = Rounds(planned=5, quorum=3).close({"a", "b", "c"}).close({"a", "b"})
    assert rounds.why == "round 2: 2 hospitals contributed, the study asks for 3"


def test_nobody_is_below_every_quorum() -> None:
    assert Rounds(planned=1, quorum=1).close(set()).outcome == "INCOMPLETE"


def test_rounds_are_numbered_from_one() -> None:
    rounds = Rounds(planned=3, quorum=1)
    assert rounds.current == 1
    assert rounds.close({"a"}).current == 2


def test_a_resumed_study_goes_on_after_the_round_behind_it() -> None:
    rounds = Rounds(planned=3, quorum=1).resume(2)
    assert (rounds.current, rounds.outcome) == (3, "RUNNING")
    assert rounds.close({"a"}).outcome == "COMPLETE"


def test_a_study_resumed_at_its_end_is_complete() -> None:
    assert Rounds(planned=3, quorum=1).resume(3).outcome == "COMPLETE"


def test_an_abandoned_study_is_incomplete_for_the_given_reason() -> None:
    rounds = Rounds(planned=3, quorum=1).abandon("two hospitals take part", wire.FEW_TAKE_PART)
    assert (rounds.outcome, rounds.why, rounds.done) == ("INCOMPLETE", "two hospitals take part", 0)


def test_closing_a_round_leaves_the_state_before_as_it_was() -> None:
    before = Rounds(planned=3, quorum=1)
    before.close({"a"})
    assert before == Rounds(planned=3, quorum=1)
    with pytest.raises(FrozenInstanceError):
        before.done = 3  # type: ignore[misc]

"""Who is kept aside: each patient's side depends on that patient alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.data.split import in_test

keys = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), unique=True, min_size=1, max_size=30)
IDS = [f"patient-{i}" for i in range(20_000)]


@given(keys, st.randoms(use_true_random=False), st.floats(0.05, 0.9))
def test_a_patients_side_does_not_depend_on_the_others(everybody: list[str], chance: object, fraction: float) -> None:
    sides = dict(zip(everybody, in_test(everybody, site="lille", seed=0, fraction=fraction), strict=True))
    some = [key for key in everybody if chance.random() < 0.5]  # type: ignore[attr-defined]
    chance.shuffle(some)  # type: ignore[attr-defined]
    again = in_test(some, site="lille", seed=0, fraction=fraction)
    assert [bool(side) for side in again] == [bool(sides[key]) for key in some]


@pytest.mark.parametrize("fraction", [0.1, 0.34, 0.5])
def test_about_the_asked_share_is_kept_aside(fraction: float) -> None:
    found = in_test(IDS, site="lille", seed=0, fraction=fraction).mean()
    assert found == pytest.approx(fraction, abs=4 * (fraction * (1 - fraction) / len(IDS)) ** 0.5)


def test_a_larger_share_keeps_those_aside_who_were() -> None:
    small, large = (in_test(IDS, site="lille", seed=0, fraction=fraction) for fraction in (0.2, 0.5))
    assert (large >= small).all()


@pytest.mark.parametrize("other", [{"site": "lyon"}, {"seed": 1}])
def test_another_site_or_seed_splits_independently(other: dict[str, object]) -> None:
    here = in_test(IDS, site="lille", seed=0, fraction=0.5)
    there = in_test(IDS, **({"site": "lille", "seed": 0, "fraction": 0.5} | other))  # type: ignore[arg-type]
    assert (here == there).mean() == pytest.approx(0.5, abs=0.015)


def test_nobody_is_kept_aside_at_zero() -> None:
    assert not in_test(IDS, site="lille", seed=0, fraction=0.0).any()

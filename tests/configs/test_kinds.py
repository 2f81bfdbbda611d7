"""Registries of kinds: unknown names, names taken twice, and kinds that lack a half."""

from dataclasses import dataclass

import pytest

from configs.errors import KindError
from configs.kinds import Registry


@dataclass(frozen=True)
class Whole:
    name: str
    hospital: str = "half"
    coordinator: str = "half"


@dataclass(frozen=True)
class Half:
    name: str
    hospital: str = "half"


def releases() -> Registry[Whole]:
    return Registry("release", ("hospital", "coordinator"), [Whole("model update"), Whole("statistics")])


def test_an_unknown_kind_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(KindError, match="release: expected one of model update, statistics, found 'counts'"):
        releases()["counts"]


@pytest.mark.parametrize("name", ["", "a\x1b[2Jb", "x" * 10_000])
def test_an_unknown_kind_of_any_name_has_a_short_printable_message(name: str) -> None:
    with pytest.raises(KindError) as refusal:
        releases()[name]
    assert "\x1b" not in str(refusal.value)
    assert len(str(refusal.value)) < 250


def test_a_name_taken_twice_is_an_error_that_names_both() -> None:
    @dataclass(frozen=True)
    class Other(Whole):
        pass

    with pytest.raises(KindError) as refusal:
        releases().register(Other("statistics"))
    assert f"{__name__}.Whole" in str(refusal.value)
    assert "Other" in str(refusal.value)


def test_the_same_kind_may_be_registered_again() -> None:
    registry, counts = releases(), Whole("counts")
    assert registry.register(counts) is registry.register(counts) is registry["counts"]
    assert registry.names == ("model update", "statistics", "counts")


def test_a_kind_without_one_of_its_halves_is_an_error_that_names_the_kind_and_the_half() -> None:
    with pytest.raises(KindError, match=r"release 'counts' \(.*Half\): .*found no coordinator"):
        releases().register(Half("counts"))  # type: ignore[arg-type]
    assert "counts" not in releases()

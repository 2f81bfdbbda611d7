"""Children run at moments that do not depend on who is there."""

from collections import Counter

import pytest

from client.children.slots import WORKING, Slots, placed
from client.timing import slots_for

PATIENT_S = 10.0


class Asked:
    """A zygote and a clock: each child takes as long as its patient says, and what it is asked is noted."""

    def __init__(self) -> None:
        self.now = 100.0
        self.patients: list[bytes | None] = []
        self.until: list[float] = []

    def load(self, shared: bytes) -> None: ...

    def ask(self, patient: bytes | None, size: int, *, until: float) -> bytes | None:
        del size
        self.patients.append(patient)
        self.until.append(until)
        self.now = min(until, self.now + (PATIENT_S * patient[0] / 3 if patient else 0.0))
        return patient

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def slots(self, tested: float, *, paced: bool = True) -> Slots:
        return Slots(self, PATIENT_S, tested, paced, lambda: self.now, self.sleep)  # type: ignore[arg-type]


def fail() -> bytes:
    raise ValueError("a record that cannot be read")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_step_has_the_same_moments_whoever_is_there(count: int) -> None:
    zygote = Asked()
    assert slots_for(4.0) == 12
    people = [bytes([n]) for n in range(count)]
    answers = list(zygote.slots(0.0).answers([lambda one=one: one for one in people], 1, expected=4.0))  # type: ignore[misc]
    assert sorted(answers) == list(enumerate(people))
    assert sorted(patient for patient in zygote.patients if patient is not None) == people
    assert zygote.until == pytest.approx([100.0 + (n + WORKING) * PATIENT_S for n in range(12)])
    assert zygote.now == pytest.approx(100.0 + 12 * PATIENT_S)


def test_a_patient_who_cannot_be_read_is_a_slot_of_nobody() -> None:
    zygote = Asked()
    assert list(zygote.slots(0.0).answers([fail], 1)) == [(0, None)]
    assert zygote.patients == [None] * slots_for(0.0)


def test_without_slots_patients_follow_each_other() -> None:
    assert list(Asked().slots(0.0, paced=False).answers([lambda: b"a", fail, lambda: b"b"], 1)) == [
        (0, b"a"),
        (1, None),
        (2, b"b"),
    ]


def test_every_slot_is_equally_likely_for_one_patient_and_for_one_beside_others() -> None:
    for count in (1, 3):
        slots = Counter(next(slot for slot, who in placed(count, 4).items() if who == 0) for _ in range(4000))
        assert all(800 < slots[slot] < 1200 for slot in range(4))  # over 6 standard deviations


def test_more_patients_than_slots_double_them() -> None:
    assert [slots_for(100.0, count) for count in (0, 132, 133, 265)] == [132, 132, 264, 528]

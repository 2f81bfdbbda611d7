"""When each child runs: in slots of public length, in an order that chance decides.

What a child sees beside its patient must not depend on who else is there, or one patient could turn all other answers
by being one more: a child reads the clock, and its number among all processes. So a step has a public number of slots,
and each patient gets one of them at random, without a second one. The others' slots then have the same distribution
with a patient and without. A slot that is left over gets a child of nobody. Each begins at its own moment, whatever the
one before did with its time, and a step ends after the last.

Only where there are more patients than slots does their number show: slots are then doubled until all have one, as the
times of answers are (client/timing.py).

>>> sorted(placed(2, 4).items()) == sorted(placed(2, 4).items())  # almost never
False
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from client.children.zygote import Zygote
from client.timing import slots_for
from strategies.kits import packed
from strategies.kits.children import Question

READING = 0.4  # the part of a slot until which a patient's records are decoded
WORKING = 0.8  # the part of a slot after which its child is killed; the rest is for its end and the next one's start
_chance = secrets.SystemRandom()


def placed(count: int, slots: int) -> dict[int, int]:
    """Return slot -> patient: a slot of its own for each, all choices being equally likely."""
    return {slot: patient for patient, slot in enumerate(_chance.sample(range(slots), count))}


@dataclass(frozen=True)
class Slots:
    """The children of one hospital's steps, as an engine asks them (strategies/privacy/engines/forked.py).

    Args:
        zygote: forks them.
        patient_s: the length of a slot.
        tested: test patients, by public numbers.
        paced: whether there are slots. Without them patients are asked one after the other, as fast as they are, where
            nothing has to be hidden from a clock: a simulation, a study without privacy.
        readings: forks those that decode records before any patient is asked for, which a thread of its own may want
            while a step goes on; `zygote` unless given.
    """

    zygote: Zygote
    patient_s: float
    tested: float = 0.0
    paced: bool = True
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    readings: Zygote | None = None
    _now: threading.local = field(default_factory=threading.local)  # `until`: of the slot that this thread is in

    def load(self, shared: bytes) -> None:
        """Give what all children get."""
        self.zygote.load(shared)

    def answers(
        self, questions: Sequence[Question], size: int, *, expected: float | None = None
    ) -> Iterator[tuple[int, bytes | None]]:
        """Yield each question's number and what its child says, in the order of the slots: `size` bytes, or None."""
        if not self.paced:
            yield from ((number, self._ask(one, size, self.clock())) for number, one in enumerate(questions))
            return
        slots = slots_for(self.tested if expected is None else expected, len(questions))
        patients, begin = placed(len(questions), slots), self.clock()
        for slot in range(slots):
            patient = patients.get(slot)
            question = None if patient is None else questions[patient]
            answer = self._ask(question, size, self._sleep_until(begin + slot * self.patient_s))
            if patient is not None:
                yield patient, answer
        self._sleep_until(begin + slots * self.patient_s)

    def record(self, reader: str, path: str, content: bytes, size: int) -> bytes | None:
        """Return what a child decodes of a record: in its patient's slot, or in a time of its own."""
        question = packed.record(reader, path, content)
        if (until := getattr(self._now, "until", None)) is not None:
            return self.zygote.ask(question, size, until=until)
        zygote = self.readings or self.zygote
        with zygote.lock:
            return self._in_time_of_its_own(zygote, question, size)

    def _in_time_of_its_own(self, zygote: Zygote, question: bytes, size: int) -> bytes | None:
        begin = self.clock()
        decoded = zygote.ask(question, size, until=begin + WORKING * self.patient_s)
        if self.paced:
            self._sleep_until(begin + self.patient_s)
        return decoded

    def _ask(self, question: Question | None, size: int, begin: float) -> bytes | None:
        self._now.until = begin + READING * self.patient_s
        try:
            patient = None if question is None else question()
        except Exception:  # whatever it is, it is this patient's
            patient = None
        finally:
            self._now.until = None
        return self.zygote.ask(patient, size, until=begin + WORKING * self.patient_s)

    def _sleep_until(self, moment: float) -> float:
        """Return the moment, or now where it has passed."""
        now = self.clock()
        self.sleep(max(0.0, moment - now))
        return max(moment, now)

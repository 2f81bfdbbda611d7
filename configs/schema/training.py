"""The section `training`: the strategy, the rounds, and the local steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from configs.federated import FEDERATED, STRATEGY, Strategy
from configs.keys.declare import Part, key
from configs.keys.values import Around, Choice, Integer, Number, Place
from configs.sections import Section

MAX_ROUNDS = 100_000
_SHARE_OF_ROUNDS = Number("a share of the rounds from 0 to 1", 0.0, 1.0)
_RATE = Number("a number above 0, at most 1000", 0.0, 1e3, above=True)


class _BatchSize(Integer):
    """A number of patients, or `full` for all of them."""

    expected = "an integer from 1, or full"

    def read(self, at: Place) -> Any:
        """Return the number, None for all patients and in place of a mistake."""
        if at.found == "full":
            return None
        if isinstance(at.found, int):
            return Integer.read(self, at)
        at.problem(self.expected, "full means every patient")
        return None

    def write(self, value: Any) -> Any:
        """Return the number, or `full`."""
        return value or "full"

    @property
    def schema(self) -> dict[str, Any]:
        """Return an integer, or `full`."""
        return {"anyOf": [super().schema, {"const": "full"}]}


def _one_epoch(section: Section, _around: Around) -> int | None:
    return 1 if section.values.get("steps") is None else None


@dataclass(frozen=True, slots=True)
class Local:
    """A hospital's work in one round: `steps` optimizer steps, or `epochs` passes' worth of them.

    `batch_size` is the number of patients expected in a step; None means all of them. `engine` says how private
    gradients are computed, never what they are: `alone` takes one patient at a time, `opacus` forces the reference.
    """

    batch_size: int | None = key(
        _BatchSize(1, 1_000_000_000),
        "the number of patients expected in a step; full: all of them",
        written=lambda _: True,
    )
    learning_rate: float = key(_RATE, "the hospital's step size")
    epochs: int | None = key(
        Integer(1, 10_000), "passes over the patients", default=_one_epoch, init=1, unsaid="1, without steps"
    )
    steps: int | None = key(Integer(1, 1_000_000), "steps in a round, in the place of epochs", default=None)
    optimizer: Literal["sgd", "adam"] = key(
        Choice(("sgd", "adam")), "the hospital's optimizer, made anew in each round", default="sgd"
    )
    momentum: float = key(Number("a number from 0 to 0.999", 0.0, 0.999), "of sgd", default=0.0)
    weight_decay: float = key(Number("a number from 0 to 10", 0.0, 10.0), "pull towards 0", default=0.0)
    engine: str = key(
        Choice(("auto", "opacus", "alone")),
        default="auto",
        written=lambda local: local.engine != "auto",  # studies keep the digest that they had before it was
        about="how private gradients are computed, never what they are; alone takes one patient at a time, "
        "opacus forces the reference",
    )

    def check(self, section: Section, _around: Around) -> None:
        """Note steps beside epochs."""
        if self.steps is not None and self.epochs is not None:
            section.note("steps", "expected either steps or epochs, found both; keep one")

    def steps_per_round(self, patients: int) -> int:
        """Return the optimizer steps in one round at a hospital with `patients` training patients.

        >>> Local(batch_size=32, learning_rate=0.1, epochs=2).steps_per_round(199)
        14
        """
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * (1 if self.batch_size is None else max(1, -(-patients // self.batch_size)))

    def sampling_rate(self, patients: int) -> float:
        """Return the probability that a patient is in a step; 1 where the batch is everybody."""
        return 1.0 if self.batch_size is None else min(1.0, self.batch_size / patients)


class _Quorum(Integer):
    """A number of hospitals, at most those of the cohort."""

    def read(self, at: Place) -> int:
        """Return the number, 1 in place of a mistake."""
        return Integer(self.low, len(at.around["cohort"]) or self.high).read(at)


def _whole_cohort(section: Section, around: Around) -> int:
    if not around["cohort"]:
        section.note("quorum", "expected a number of hospitals, found nothing; add it, or announce the cohort")
    evaluation = section.top.values.get("evaluation")
    only = evaluation.get("test_only") if isinstance(evaluation, Mapping) else None
    names = set(only) if isinstance(only, list) and all(isinstance(name, str) for name in only) else set()
    return max(1, sum(member.site not in names for member in around["cohort"]))


def _weighted(_section: Section, around: Around) -> str:
    return "public" if around["cohort"] else "uniform"


@dataclass(frozen=True, slots=True)
class Personalise:
    """What each hospital makes of the last model for itself: Ditto (Li et al. 2021, arXiv 2012.04221)."""

    steps: int = key(Integer(1, 10_000), "steps on the hospital's own training patients, all of them in each")
    pull: float = key(
        Number("a number from 0 to 1000", 0.0, 1e3), "the pull to the shared model: 0 is none, the model then is local"
    )


@dataclass(frozen=True, slots=True)
class Training:
    """Rounds, and what makes a round valid. `average_last` is the share of last rounds averaged into the result.

    `auto`: the file leaves all of it to be completed from public facts (strategies/settings.py).
    """

    strategy: Strategy = key(STRATEGY, "how the coordinator combines models", init=Strategy("none"))
    rounds: int = key(Integer(1, MAX_ROUNDS), "how often every hospital trains and sends its model", init=1)
    local: Local = key(
        Part(Local, "a mapping with batch_size and learning_rate"),
        "what a hospital does in one round",
        init=Local(None, 0.0),
    )
    quorum: int = key(
        _Quorum(1, 100_000),
        "hospitals that must contribute to every round",
        default=_whole_cohort,
        init=1,
        unsaid="every hospital of the cohort",
    )
    round_timeout_s: float = key(
        Number("seconds above 0, at most a week", 0.0, 604_800.0, above=True),
        "how long a round waits for its hospitals",
        default=600.0,
    )
    weights: Literal["public", "uniform"] = key(
        Choice(("public", "uniform")),
        "whether a hospital counts by its announced patients, or as any other",
        default=_weighted,
        init="uniform",
        unsaid="public where a cohort is announced, else uniform",
    )
    average_last: float = key(_SHARE_OF_ROUNDS, "the share of last rounds averaged into the result", default=0.0)
    personalise: Personalise | None = key(
        Part(Personalise, "a mapping with steps and pull"),
        "a model of its own that each hospital makes of the last one and keeps; nothing of it leaves",
        default=None,
    )
    auto: bool = False

    def check(self, section: Section, around: Around) -> None:
        """Note weights by sizes that were not announced, and what does not go with the strategy."""
        if self.weights == "public" and not around["cohort"]:
            section.problem("weights", "uniform, as no cohort is announced", "public", "announce the cohort's sizes")
        if self.strategy.name in FEDERATED:
            FEDERATED[self.strategy.name].check(self, section, around)


AUTO = Training(auto=True)


class Settings(Part):
    """The section `training`, or the word `auto` in its place, which a study without the section means too."""

    def read(self, at: Place) -> Training:
        """Return the section's settings, or AUTO."""
        if at.found in (None, "auto"):
            at.section.take(at.key)
            return AUTO
        return Part.read(self, at)  # type: ignore[no-any-return]

    def write(self, value: Training) -> Any:
        """Return the section, or `auto`."""
        return "auto" if value.auto else Part.write(self, value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return the section, `auto` or null, so that an editor speaks of the section where it stands."""
        words = {"type": ["object", "string", "null"], "pattern": "^auto$"}
        return words | {"if": {"type": "object"}, "then": super().schema}


TRAINING = Settings(Training, "a mapping with strategy, rounds, local, or auto")

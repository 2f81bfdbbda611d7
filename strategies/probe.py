"""The probe of a kit's model: what it does with made-up patients, before it sees a real one.

A help to the honest, and no proof: code that hides what it does passes. What holds whatever the code does is the engine
`forked`, where a model is never given two patients; the probe says what a model would do where it is.

Each check compares losses and gradients of patients under the same seed of chance, with a copy of the untouched model
each time: (a) alone against among others, (b) one other patient replaced, also by extremes, (c) one left out, (d) what
the model keeps of the patients that it saw, (e) names, shapes, finite numbers, (f) how many are above the clip norm.

>>> net = lambda: torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
>>> loss = lambda outputs, y: torch.nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], y, reduction="none")
>>> result = probe(Subject(net, loss, shape=(3,)))
>>> [finding.check for finding in result.warnings]
['a', 'b', 'c', 'd']
"""

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
PATIENTS = 6  # that go through the model together
EVERYBODY, ENDS = range(PATIENTS), (0, PATIENTS - 1)
SEEDS = (0, 1, 2)
_CLOSE = 1e-3  # of a gradient's norm: rounding stays below, a mixed patient does not
NO_PROOF = "The probe is a help to the honest and no proof: code that hides what it does passes it."


@dataclass(frozen=True)
class Subject:
    """A model to be probed.

    Args:
        build: returns the module.
        loss: (outputs, target) -> (rows,).
        shape: of one record, as `forward` reads it behind the rows.
        target: shape of a target that is a record; None where it is one number a row.
        score: (outputs, target) -> a number in [0, 1].
        classes: what a target that is a number counts to: 0 to classes - 1; 0 where it is any number.
        parameters: name -> shape that the study declares; None where nothing is declared yet.
    """

    build: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    shape: Shape
    target: Shape | None = None
    score: Callable[[Tensor, Tensor], float] | None = None
    classes: int = 2
    parameters: Mapping[str, Shape] | None = None


@dataclass(frozen=True)
class Finding:
    """What one check says: `check` is its letter; a warning is about privacy, or keeps the model from training."""

    check: str
    sentence: str
    is_warning: bool = True


@dataclass(frozen=True)
class Result:
    """What the probe says of one model: its findings, and figures of a made-up patient."""

    findings: tuple[Finding, ...]
    parameters: int = 0
    above_clip: float = 0.0  # share of made-up patients with a gradient above the clip norm
    seconds: float = 0.0  # of one patient's gradient, the median
    megabytes: float = 0.0  # that the probe took beyond what was there before

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Return the findings that warn."""
        return tuple(finding for finding in self.findings if finding.is_warning)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Return the result as a person reads it: the findings, the figures, and what it is worth."""
        return (
            *(f"{'warning' if f.is_warning else 'note'} ({f.check}): {f.sentence}" for f in self.findings),
            *([] if self.warnings else ["none of the checks (a) to (e) warns"]),
            f"{self.parameters:,} parameters; a made-up patient takes {1000 * self.seconds:.1f} ms and "
            f"{self.megabytes:.0f} MB; (f) {self.above_clip:.0%} of made-up patients are above the clip norm",
            NO_PROOF,
        )

    def as_fields(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> "Result":
        """Return the result that `as_fields` described."""
        return cls(**{**fields, "findings": tuple(Finding(**finding) for finding in fields["findings"])})


def probe(
    subject: Subject,
    *,
    clip_norm: float = 1.0,
    clock: Callable[[], float] = lambda: 0.0,
    memory_bytes: Callable[[], int] = lambda: 0,
) -> Result:
    """Return what a model does with made-up patients.

    Args:
        clock: seconds, such as time.perf_counter.
        memory_bytes: the most memory that this process has had.
    """
    begin = memory_bytes()
    try:
        module = subject.build()
        trials = [_Trial(subject, module, seed) for seed in SEEDS]
        broken = [*_form(subject, module)] or [*_answers(trials[0])]
        if broken:
            return Result(tuple(broken), _count(module))
        findings = [*_chance(trials[0]), *_mixing(trials), *_state(trials)]
        norms, seconds = _figures(trials, clock)
    except Exception as error:
        return Result((Finding("e", f"it fails on a made-up patient: {type(error).__name__}: {error}"),))
    megabytes = max(0, memory_bytes() - begin) / 2**20
    above = sum(norm > clip_norm for norm in norms) / len(norms)
    return Result(tuple(findings), _count(module), above, sorted(seconds)[len(seconds) // 2], megabytes)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@dataclass(frozen=True)
class _Seen:
    """What a model made of some patients: each one's loss, (patients,), and the gradient of their weighted sum."""

    losses: Tensor
    gradient: Tensor

    def differs(self, other: "_Seen") -> bool:
        """Return whether another look at the same patients shows another loss or gradient."""
        pairs = ((self.losses, other.losses), (self.gradient, other.gradient))
        return any(float((a - b).norm()) > _CLOSE * float(torch.maximum(a.norm(), b.norm())) + 1e-6 for a, b in pairs)


class _Trial:
    """A model and made-up patients of one seed."""

    def __init__(self, subject: Subject, module: nn.Module, seed: int) -> None:
        self.subject, self.module, self.seed = subject, module, seed
        chance = torch.Generator().manual_seed(seed)
        self.x = torch.randn((PATIENTS, *subject.shape), generator=chance)
        self.weights = 0.5 + torch.rand(PATIENTS, generator=chance)
        if subject.target is not None:
            self.y = (torch.rand((PATIENTS, *subject.target), generator=chance) < 0.3).float()
        elif subject.classes:
            self.y = (torch.arange(PATIENTS) % subject.classes).float()
        else:
            self.y = torch.randn(PATIENTS, generator=chance)

    def fresh(self) -> nn.Module:
        """Return a copy of the model as it was built."""
        return copy.deepcopy(self.module).train()

    def seen(
        self,
        rows: Sequence[int] = EVERYBODY,
        *,
        module: nn.Module | None = None,
        of: Sequence[int] | None = None,
        replaced: Mapping[int, tuple[Tensor, Tensor]] = MappingProxyType({}),
        more: int = 0,
    ) -> _Seen:
        """Return what the model makes of patients who go through it together.

        Args:
            rows: who they are.
            module: a model that has seen some before; an untouched copy unless given.
            of: whose losses and gradients are looked at; all of theirs unless given.
            replaced: the records and targets that stand in the place of some.
            more: added to the seed of chance.
        """
        module = module or self.fresh()
        x = torch.stack([replaced.get(row, (self.x[row], self.y[row]))[0] for row in rows])
        y = torch.stack([replaced.get(row, (self.x[row], self.y[row]))[1] for row in rows])
        looked = [rows.index(row) for row in (rows if of is None else of)]
        weights = self.weights[[rows[place] for place in looked]]
        parameters = [p for p in module.parameters() if p.requires_grad]
        with _chance_of(self.seed + more):
            losses = self.subject.loss(module(x), y)[looked]
            total = (losses * weights).sum()
            parts: Any = [None] * len(parameters)
            if total.requires_grad:
                parts = torch.autograd.grad(total, parameters, allow_unused=True)
        whole = zip(parameters, parts, strict=True)
        flat = torch.cat([(torch.zeros_like(p) if part is None else part).reshape(-1).double() for p, part in whole])
        return _Seen(losses.detach().double(), flat)

    def alone(self) -> _Seen:
        """Return what untouched copies make of the patients one by one, as if they had gone together."""
        each = [self.seen([row]) for row in EVERYBODY]
        return _Seen(torch.cat([one.losses for one in each]), torch.stack([one.gradient for one in each]).sum(0))


class _chance_of:  # noqa: N801 - used as a statement
    """Seed all chance while entered, and put it back."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(self._seed)
        np.random.seed(self._seed)
        torch.manual_seed(self._seed)

    def __exit__(self, *_: object) -> None:
        random.setstate(self._before[0])
        np.random.set_state(self._before[1])
        torch.set_rng_state(self._before[2])


# (e) its form


def _form(subject: Subject, module: nn.Module) -> Iterator[Finding]:
    """Yield what is wrong with the module before it is given a patient."""
    built = {name: tuple(p.shape) for name, p in module.named_parameters()}
    if not built:
        yield Finding("e", "it has no parameter to train")
    if subject.parameters is not None and built != {name: tuple(shape) for name, shape in subject.parameters.items()}:
        strange = sorted(set(built.items()) ^ set(subject.parameters.items()))[0][0]
        yield Finding("e", f"expected the arrays that the study declares, found another name or shape at {strange!r}")
    others = sorted({str(p.dtype) for p in module.parameters()} - {"torch.float32"})
    if others:
        yield Finding("e", f"expected parameters of float32, found {', '.join(others)}")


def _answers(trial: _Trial) -> Iterator[Finding]:
    """Yield what is wrong with the losses, gradients and scores of made-up patients."""
    module = trial.fresh()
    with _chance_of(trial.seed):
        outputs = module(trial.x)
        losses = trial.subject.loss(outputs, trial.y)
    if losses.shape != (PATIENTS,):
        yield Finding("e", f"expected the loss of each row, ({PATIENTS},), found the shape {tuple(losses.shape)}")
        return
    seen = trial.seen()
    if not bool(seen.losses.isfinite().all() and seen.gradient.isfinite().all()):
        yield Finding("e", "a made-up patient has a loss or a gradient that is not finite; such patients add nothing")
    for row in EVERYBODY if trial.subject.score is not None else ():
        score = float(trial.subject.score(outputs[row : row + 1].detach(), trial.y[row : row + 1]))  # type: ignore[misc]
        if not 0.0 <= score <= 1.0:
            yield Finding("e", "expected scores from 0 to 1, found another of a made-up patient")
            return


def _chance(trial: _Trial) -> Iterator[Finding]:
    """Yield a note where the model draws chance."""
    if _draws(trial):
        yield Finding(
            "a",
            "it draws chance, such as dropout: sound where it is drawn for each patient apart, as the engines alone "
            "and forked do; they seed it by the patient's own rows",
            is_warning=False,
        )


def _draws(trial: _Trial) -> bool:
    return trial.seen().differs(trial.seen(more=1000))


# (a) to (c) whether patients who go through it together touch each other


def _mixing(trials: list[_Trial]) -> Iterator[Finding]:
    """Yield a warning for each check by which one patient moves another one's loss or gradient."""
    draws = _draws(trials[0])  # then patients in a smaller batch have other chance
    if not draws and any(_moves_beside_others(trial) for trial in trials):
        yield Finding("a", "a patient's loss or gradient is another one alone than in a batch with others")
    moved = next((name for trial in trials for name in _replacements(trial)), None)
    if moved:
        yield Finding("b", f"replacing one patient ({moved}) moves the loss or the gradient of others")
    if not draws and any(_moves_when_left_out(trial, row) for trial in trials for row in ENDS):
        yield Finding("c", "leaving one patient out moves the loss or the gradient of others")


def _moves_beside_others(trial: _Trial) -> bool:
    try:
        return trial.seen().differs(trial.alone())
    except Exception:
        return True  # it works with several patients and with no single one


def _moves_when_left_out(trial: _Trial, row: int) -> bool:
    others = _without(row)
    return trial.seen(of=others).differs(trial.seen(others))


def _replacements(trial: _Trial) -> Iterator[str]:
    """Yield the names of replacements of one patient that move another one."""
    for row in ENDS:
        others = _without(row)
        before = trial.seen(of=others)
        for name, replacement in _extremes(trial, row):
            if before.differs(trial.seen(of=others, replaced={row: replacement})):
                yield name


def _without(row: int) -> list[int]:
    return [other for other in EVERYBODY if other != row]


def _extremes(trial: _Trial, row: int) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Yield what may stand in a patient's place, by name."""
    x, y = trial.x[row], trial.y[row]
    single = torch.zeros_like(x).reshape(-1)
    single[0] = 1e4
    yield "by another usual one", (x.flip(0) - 0.5, y)
    yield "by zeros", (torch.zeros_like(x), y)
    yield "by large values", (1e3 * x, y)
    yield "by very large values", (torch.full_like(x, 1e6), y)
    yield "by very low values", (torch.full_like(x, -1e6), y)
    yield "by a single high value", (single.reshape(x.shape), y)
    yield "by a copy of another one", (trial.x[1], trial.y[1])
    yield "in the outcome", (x, 1.0 - y if trial.subject.classes or trial.subject.target else 10.0 * y)


# (d) what it keeps


def _state(trials: list[_Trial]) -> Iterator[Finding]:
    """Yield a warning where the model is another one after it has seen patients."""
    if any(_keeps_in_buffers(trial) for trial in trials):
        yield Finding("d", "its buffers change with the patients that it sees; no noise covers what they keep")
    elif any(_remembers(trial) for trial in trials):
        yield Finding("d", "it gives another loss or gradient of the same patients after it has seen others")


def _keeps_in_buffers(trial: _Trial) -> bool:
    module = trial.fresh()
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    trial.seen(module=module)
    after = dict(module.named_buffers())
    return before.keys() != after.keys() or any(not torch.equal(before[name], after[name]) for name in before)


def _remembers(trial: _Trial) -> bool:
    module, some = trial.fresh(), [0, 1]
    first = trial.seen(some, module=module)
    for start in (2, 3):
        trial.seen(list(EVERYBODY[start:]), module=module)
    return first.differs(trial.seen(some, module=module))


# (f) figures


def _figures(trials: list[_Trial], clock: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Return made-up patients' gradient norms, each alone, and the seconds that each took."""
    norms, seconds = [], []
    for trial in trials:
        for row in EVERYBODY:
            start = clock()
            try:
                norms.append(float(trial.seen([row]).gradient.norm() / trial.weights[row]))
            except Exception:  # noqa: S112 - check (a) has said so
                continue
            seconds.append(clock() - start)
    return norms or [0.0], seconds or [0.0]

"""A rehearsal as lines for a terminal."""

from collections.abc import Iterator

from configs.records.estimate import Estimate
from configs.records.rehearsal import Compared, Leaving, Rehearsal
from configs.schema import PER_PATIENT
from configs.shown import escaped

SOON_S = 1.0  # public times of answers that nobody has to know of
MARK = "seen by you alone; these figures are not covered by any epsilon: pass none of them on"


def rehearsal(view: Rehearsal) -> Iterator[str]:
    """Yield the lines of a rehearsal."""
    yield f"{escaped(view.name)} {view.study[:20]}, rehearsed here with this hospital as the only one"
    yield MARK
    if view.obstacle:
        yield f"WARNING  as it is, the study cannot run here: {escaped(view.obstacle)}"
    yield from (f"WARNING  {escaped(oddity)}" for oddity in view.oddities)
    yield f"  patients    {view.train:,} trained, {view.test:,} kept aside for the test"
    yield from _leaving(view)
    if view.answer_s > SOON_S:
        yield f"  answers     would leave at multiples of {_seconds(view.answer_s)}, however soon they are made"
    yield f"  memory      {view.memory_mb:,.0f} MB"
    if view.max_epsilon:
        after = f"; this study would bring it to {view.after:.2f}" if view.after else ""
        yield (
            f"  budget      epsilon {view.spent:.2f} of {view.max_epsilon:g} is spent by other studies{after} "
            f"({PER_PATIENT}); the rehearsal spent none"
        )
    yield from _metrics(view)


def _leaving(view: Rehearsal) -> Iterator[str]:
    for kind in view.leaving:
        yield f"  leaves      {kind.name}: {_left(kind)}"


def _left(kind: Leaving) -> str:
    if kind.why:
        return f"no, {escaped(kind.why)}"
    times = "once" if kind.times == 1 else f"{kind.times:,} times"
    slowest = f", at most {_seconds(kind.slowest)}" if kind.times > 1 else ""
    return f"{times}, {kind.bytes:,} bytes each, {_seconds(kind.seconds)} to make{slowest}"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _metrics(view: Rehearsal) -> Iterator[str]:
    """Yield a line a metric, and whether the training gets anywhere."""
    if not view.metrics:
        if view.rounds:
            yield "  no patient was kept aside, so nothing says whether the training gets anywhere"
        return
    rows = [("", "with noise", "without noise", "a constant")]
    for name, figures in view.metrics.items():
        rows.append((name, _estimate(figures.noisy), _estimate(figures.plain), _figure(figures.constant)))
    widths = [max(len(row[place]) for row in rows) for place in range(4)]
    yield from (
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
    name, figures = next(iter(view.metrics.items()))
    yield f"  {_verdict(name, figures)}; the study's model is made by all hospitals, and sees more patients"


def _verdict(name: str, figures: Compared) -> str:
    """Say whether a training of this hospital alone gets anywhere, by the headline metric's interval."""
    if figures.noisy is None or figures.constant is None:
        return f"{name} is undefined here: too few test patients of each outcome"
    if _beats(figures.noisy, figures):
        return f"with noise it gets somewhere here ({name} is better than a constant's)"
    if figures.plain is not None and _beats(figures.plain, figures):
        return f"THE NOISE DROWNS IT HERE: without noise {name} is better than a constant's, with noise it is not"
    best = figures.plain or figures.noisy
    if (best.value < figures.constant) == figures.lower_is_better and best.value != figures.constant:
        return f"{name} cannot be told from a constant's by the test patients here"
    return f"IT GETS NOWHERE HERE: {name} is no better than a constant's"


def _beats(estimate: Estimate, figures: Compared) -> bool:
    assert figures.constant is not None
    return estimate.high < figures.constant if figures.lower_is_better else estimate.low > figures.constant


def _estimate(value: Estimate | None) -> str:
    return "-" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

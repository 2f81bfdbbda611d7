"""The views as lines for a terminal."""

import textwrap
from collections.abc import Iterable, Iterator

from client.views.journal import Entry
from client.views.notices import Notice
from client.views.outbox import Departure, OpenedMessage
from client.views.review import Decided, StudyPage
from client.views.spending import DatasetSpending, StudySpending
from configs.records.estimate import Estimate
from configs.records.local_use import LocalFigures
from configs.schema import PER_PATIENT
from configs.shown import DIGITS, escaped

WIDTH, MARGIN = 100, 14


def page(view: StudyPage) -> str:
    """Return a study's page."""
    commands = [f"    {c.typed}{f'    {c.remark}' if c.remark else ''}" for c in view.commands]
    if view.flaw:
        return "\n".join([f"── {escaped(view.name)}: {view.state}, {view.flaw}", "", *commands, ""])
    rows = [(row.title, row.text) for row in view.rows]
    if view.obstacle:
        rows.insert(0, ("", f"CANNOT RUN HERE: {view.obstacle}"))
    if view.over:
        rows.insert(0, ("over", f"{view.left}; OVER here"))
    if view.end:
        rows.append(("the end", view.end))
    lines = [f"── {view.name}: {view.state}{', OVER here' if view.over else ''} " + "─" * 40]
    for title, text in rows:
        parts = []  # of others' words none begins left of here, where the titles are
        for line in text.split("\n"):
            indent = "| " if line.startswith("| ") else ""
            parts += textwrap.wrap(line, WIDTH - MARGIN, subsequent_indent=indent) or [""]
        lines.append(f"{title:>{MARGIN - 2}}  {parts[0]}")
        lines += [" " * MARGIN + part for part in parts[1:]]
    return "\n".join([*lines, "", *commands, ""])


def decided(view: Decided) -> str:
    """Return the line of a study that does not wait."""
    why = f" ({escaped(view.why)})" if view.why else ""
    remaining = f": {view.left}" if view.left else ""
    over = "; OVER here" if view.over else ""
    end = f"; the end: {view.end}" if view.end else ""
    return f"{view.state}: {escaped(view.name)} {view.digest[:DIGITS]}{why}{remaining}{over}{end}"


def notice(view: Notice) -> str:
    """Return a warning, with what must be done on a line of its own."""
    return f"WARNING  {view.text}" + (f"\n         {view.todo}" if view.todo else "")


def spending(views: Iterable[DatasetSpending]) -> Iterator[str]:
    """Yield the lines of what is spent."""
    spent = False
    for view in views:
        spent = True
        yield (
            f"{view.dataset}: epsilon {view.spent:.3f} spent, {view.left:.3f} left of "
            f"{view.max_epsilon:g} ({PER_PATIENT}, delta {view.delta:g}, all studies together)"
        )
        yield from (f"  {_study(study)}" for study in view.studies)
    if not spent:
        yield "nothing is spent yet"


def _study(view: StudySpending) -> str:
    releases = f"{view.rounds} round{'' if view.rounds == 1 else 's'}" if view.trains else "its statistics"
    evaluated = " and the evaluation" if view.evaluated else ""
    evaluated += "".join(f" and the {name}" for name in view.others)
    note = f", {view.lost} of them begun and lost: they count" if view.lost else ""
    if view.seeded:
        note += f"; the noise of {view.seeded} came from a seed: it protects nobody who knows the seed"
    return f"{view.name} {view.digest[:DIGITS]}: epsilon {view.epsilon:.3f}, {releases}{evaluated}{note}"


def departure(view: Departure) -> str:
    """Return the line of a message that left."""
    more = f", and {view.more:,} time{'' if view.more == 1 else 's'} more until {view.until[:19]}" if view.more else ""
    answer = f"  {view.answer}" if view.answer else ""
    return (
        f"{view.time[:19]}  {view.message[:8]}  study {view.study[:DIGITS]}  round {view.round:4}  {view.kind:12} "
        f"{view.bytes:>10} bytes  sha256 {view.sha256[:16]}{answer}{more}"
    )


def opened(view: OpenedMessage) -> str:
    """Return a message that left: every field, every array with its first values."""
    lines = [f"{view.message}: {view.form}, sha256 {view.sha256}, as the journal says"]
    lines += [f"  {name}: {value}" for name, value in view.fields.items()]
    lines += [f"  {array.name} {list(array.shape)} {array.dtype}: {array.values}" for array in view.arrays]
    if view.counts is not None:
        lines.append("  counts of patients, noise included:")
        for column, counts in view.counts.items():
            lines.append(f"  {column}: " + ", ".join(f"{label} {count:.0f}" for label, count in counts.items()))
    return "\n".join(lines)


def figures(view: LocalFigures) -> Iterator[str]:
    """Yield the lines of how good a model is here."""
    yield f"{escaped(view.name)} {view.study[:DIGITS]} on {view.patients:,} test patients of this hospital"
    if view.mark:
        yield f"WARNING  {escaped(view.mark)}"
    for name, value in view.metrics.items():
        yield f"  {name:<26} {_estimate(value)}"
    if view.outcome is not None:
        yield f"  {'predicted less observed':<26} {_estimate(view.outcome.calibrated.in_the_large)}"
        yield f"  {'slope of the log odds':<26} {_estimate(view.outcome.calibrated.slope)}"
    for part in view.calibration or ():
        shares = f"predicted {part.predicted:.3f}, observed {part.observed:.3f} of {part.count:,.0f}"
        yield f"  {f'scores {part.low:.1f} to {part.high:.1f}':<26} {shares}"
    yield "for this hospital alone: nothing of it leaves"


def _estimate(value: Estimate | None) -> str:
    return "undefined" if value is None else f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def entry(view: Entry) -> str:
    """Return the line of a record of the journal."""
    facts = ", ".join(f"{name} {_printable(value)}" for name, value in view.facts.items())
    return f"{view.time[:19]}  {view.sequence:>7}  {view.kind:14} {facts}".rstrip()


def _printable(value: object) -> str:
    """Return a fact on one line; what no terminal should be shown is escaped."""
    text = str(value)
    return text if text.isprintable() else ascii(text)

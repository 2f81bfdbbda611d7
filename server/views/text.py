"""The views as lines for a terminal.

Texts of others are escaped where they are printed, or here.
"""

from collections.abc import Iterator, Mapping, Sequence

from configs.records.kinds import Kind
from configs.records.run_journal import Gathered, Joined, Postponed, Refused, Resumed, Round
from configs.schema import PER_PATIENT
from configs.shown import escaped
from server.views.runs import Part, Presence, Run
from server.views.sites import Site

EXPIRING_DAYS = 30
HEADER = f"{'hospital':24} {'state':14} certificate"


def site(view: Site) -> str:
    """Return a hospital's line."""
    notes = []
    if view.days_left <= EXPIRING_DAYS:
        notes.append("EXPIRED" if view.days_left < 0 else "expires soon: enrol and admit again")
    if view.without_certificate:
        notes.append("no certificate: message signatures alone")
    if view.release not in ("", view.coordinators_release):
        notes.append(f"its node has archipel {view.release}, here runs {view.coordinators_release}")
    return f"{escaped(view.site):24} {view.state:14} until {view.expires[:10]}  {'; '.join(notes)}".rstrip()


def runs(views: Sequence[Run]) -> Iterator[str]:
    """Yield the lines of runs, and what an epsilon is where one stands in them."""
    lines = [line for view in views for line in _run(view)]
    yield from lines
    if any(", epsilon " in line for line in lines):
        yield f"epsilon: {PER_PATIENT}, at each hospital"


def _run(view: Run) -> Iterator[str]:
    yield f"{view.name}  {view.state}{f': {view.why}' if view.why else ''}"
    yield from (f"  {site.site:20} {presence(site)}" for site in view.presence)
    yield from (f"  {site.site:20} {_part(site)}" for site in view.parts)
    if view.report:
        yield f"  report: {view.report}"


def presence(view: Presence) -> str:
    """Return what a hospital does in a run."""
    state = view.state if view.connected else f"not connected ({view.state})"
    return f"{state}, epsilon {view.epsilon} of {view.of:g}" if view.epsilon else state


def _part(view: Part) -> str:
    return f"contributed to {view.rounds} of {view.of} rounds{f'; {view.reason}' if view.reason else ''}"


def progress(entry: Kind | None, rounds: int, epsilon: float | None, spent: Mapping[str, str]) -> str:
    """Return the line of a run's journal record; empty where there is nothing to see.

    Args:
        rounds: of the study.
        epsilon: of the study.
        spent: the epsilon that each hospital last reported.
    """
    match entry:
        case Gathered():
            return f"gathered: {', '.join(entry.sites) or 'nobody'}{_reasons(entry.missing)}"
        case Joined():
            return f"{', '.join(entry.sites)}: takes part from round {entry.before_round} on"
        case Postponed():
            return f"postponed: {entry.why}"
        case Refused() if entry.site:
            return f"{entry.site}: {entry.reason or entry.why}"
        case Resumed():
            return f"goes on after round {entry.after_round}"
        case Round():
            by_site = ", ".join(
                f"{site} {max(0.0, (epsilon or 0.0) - float(e)):.2f}" for site, e in sorted(spent.items())
            )
            spare = f"; epsilon left: {by_site}" if by_site else ""
            contributed, seconds = ", ".join(sorted(entry.contributed)), entry.seconds or 0.0
            return f"round {entry.round}/{rounds}  {seconds:.2f} s  {contributed}{_reasons(entry.missing)}{spare}"
    return ""


def _reasons(missing: Mapping[str, str]) -> str:
    return "".join(f"; {site}: {why}" for site, why in missing.items())

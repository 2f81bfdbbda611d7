"""The runs of a consortium: their progress, and each hospital's part in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from configs.load import load_study
from server.folder import CoordinatorFolder
from server.membership import Membership, RunState
from server.recorded import Recorded

ENDED = ("COMPLETE", "INCOMPLETE")


@dataclass(frozen=True, slots=True)
class Presence:
    """A hospital's activity in a run, and the epsilon that it last reported (empty: none) of the study's."""

    site: str
    state: str
    connected: bool
    epsilon: str = ""
    of: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A hospital's number of contributions to the rounds made, and the newest reason why not to all."""

    site: str
    rounds: int
    of: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run; `report` is the path of its report once it has ended, empty where there is none."""

    name: str
    state: str
    why: str
    report: str = ""
    presence: tuple[Presence, ...] = ()
    parts: tuple[Part, ...] = ()


def runs(folder: CoordinatorFolder, name: str = "") -> Iterator[Run]:
    """Yield every run, or the one of this name with the part of each hospital in it."""
    members = folder.members
    states = members.runs()
    for run in states:
        if name not in ("", run.name):
            continue
        report = folder.report(run.name) if run.state in ENDED else None
        yield Run(
            run.name,
            run.state,
            run.why or _turn(members, run, states),
            str(report or ""),
            presence(folder, members, run) if run.state not in ENDED else (),
            _parts(folder, run.name) if name else (),
        )


def presence(folder: CoordinatorFolder, members: Membership, run: RunState) -> tuple[Presence, ...]:
    """Return what each hospital of a run does."""
    study = load_study(folder.config.runs / run.name / "study.yaml")
    reported, connected = members.presence(run.name), members.connected()
    views = []
    for site in study.sites or sorted(reported):
        state, epsilon = reported.get(site, ("has not answered yet", ""))
        views.append(Presence(site, state, site in connected, epsilon, study.privacy.epsilon if epsilon else None))
    return tuple(views)


def _turn(members: Membership, run: RunState, others: Sequence[RunState]) -> str:
    """Name the other run that a run with ready hospitals waits for; empty where it waits for hospitals."""
    if run.state not in ("QUEUED", "WAITING") or not members.ready(run.name):
        return ""
    ahead = (other.name for other in others if other.state in ("RUNNING", "STOPPING"))
    return next((f"its turn comes after {name}" for name in ahead), "")


def _parts(folder: CoordinatorFolder, name: str) -> tuple[Part, ...]:
    path = folder.config.runs / name
    if not (path / "journal.jsonl").exists():
        return ()
    recorded, study = Recorded.of(path), load_study(path / "study.yaml")
    done = max((entry.round for entry in recorded.rounds), default=0)
    parts = []
    for site in study.sites or sorted({site for entry in recorded.rounds for site in entry.contributed}):
        rounds = len(recorded.rounds_of(site, done))
        reason = recorded.reasons.get(site, "") if rounds < max(done, 1) else ""
        parts.append(Part(site, rounds, done, reason))
    return tuple(parts)

"""The studies of a hospital: a page for each that waits, and the state of the others."""

from collections.abc import Iterator
from dataclasses import dataclass

from client.admission import Admission
from client.folder import SiteFolder
from client.kept_models import kept
from client.prospects import contribution, is_over, obstacle
from client.views.study_rows import Row, rows_of
from configs.errors import ConfigError
from configs.lock import holder
from configs.shown import DIGITS, escaped


@dataclass(frozen=True, slots=True)
class Command:
    """A command that a person may type next."""

    typed: str
    remark: str = ""


@dataclass(frozen=True, slots=True)
class StudyPage:
    """The page that a security officer or a DPO reads before deciding.

    `flaw` says why there are no rows; `obstacle` why the study cannot run here even if approved; `over` whether it
    has ended here, `left` what left for it, `end` how it ended, as the coordinator told it.
    """

    name: str
    digest: str
    state: str
    flaw: str = ""
    obstacle: str = ""
    over: bool = False
    left: str = ""
    end: str = ""
    rows: tuple[Row, ...] = ()
    commands: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True)
class Decided:
    """A study that does not wait: what was decided, why, and what has left for it."""

    name: str
    digest: str
    state: str
    why: str
    left: str
    over: bool
    end: str = ""


def page_of(folder: SiteFolder, admission: Admission) -> StudyPage:
    """Return a study's page; of one that cannot be shown, that it is so: it hides no other."""
    try:
        return study_page(folder, admission)
    except Exception as error:  # whatever a study of others does to its page
        flaw = f"and cannot be shown ({type(error).__name__}): it cannot run here"
        return _flawed(folder, admission, flaw)


def study_page(folder: SiteFolder, admission: Admission) -> StudyPage:
    """Return a study's page."""
    try:
        study = admission.study
    except ConfigError as error:  # it arrived before a rule that this release has
        return _flawed(folder, admission, f"and cannot run: {escaped('; '.join(error.problems))}")
    config, digits = folder.config, admission.sha256[:DIGITS]
    over = is_over(study, folder.config.site, folder.outgoing)
    why = "" if over else obstacle(config, study)
    commands = [] if over else [Command(f"{folder.typed(f'refuse {digits}')} --why REASON")]
    if not over and not why and admission.state != "approved":
        look = Command(folder.typed(f"review --data {digits}"), "to see first what the rows hold, then")
        commands[:0] = [look, Command(folder.typed(f"approve {digits}"), "or")]
    rows = rows_of(config, study)
    return StudyPage(
        study.name,
        admission.sha256,
        admission.state,
        obstacle=why,
        over=over,
        left=_left(folder, admission)[0] if over else "",
        end=_end(folder, admission),
        rows=(*rows, Row("digest", admission.sha256), Row("arrived", admission.arrived)),
        commands=tuple(commands),
    )


def decided(folder: SiteFolder) -> Iterator[Decided]:
    """Yield the studies that do not wait for a decision."""
    for admission in folder.admissions.all():
        if not admission.waits:
            state = "not proposed any more" if admission.state == "waiting" else admission.state
            remaining, over = _left(folder, admission)
            end = _end(folder, admission)
            yield Decided(admission.name, admission.sha256, state, admission.why, remaining, over, end)


def nothing_waits(folder: SiteFolder) -> str:
    """Say that no study waits, and how one would come."""
    if holder(folder.config.lock) is None:
        return (
            "no study waits for this hospital; its node does not run, and only a node receives studies: "
            f"{folder.typed('start')}"
        )
    return "no study waits for this hospital yet; one that was just submitted arrives within a minute"


def _flawed(folder: SiteFolder, admission: Admission, flaw: str) -> StudyPage:
    refuse = Command(f"{folder.typed(f'refuse {admission.sha256[:DIGITS]}')} --why REASON")
    return StudyPage(admission.name, admission.sha256, admission.state, flaw=flaw, commands=(refuse,))


def _end(folder: SiteFolder, admission: Admission) -> str:
    """Say how a study ended and which model was kept, empty where the coordinator has not told it."""
    if (end := kept(folder.config, admission.sha256)) is None:
        return ""
    rounds = f"after {end.rounds} round{'' if end.rounds == 1 else 's'}"
    model = f"; its model is models/{end.study[:DIGITS]}..., sha256 {end.model_sha256[:16]}" if end.has_model else ""
    return f"{escaped(end.outcome)} {rounds}{'' if not end.code else f': {escaped(end.why)}'}{model}"


def _left(folder: SiteFolder, admission: Admission) -> tuple[str, bool]:
    """Return what has left for a study so far, and whether it is over here."""
    try:
        study, outgoing = admission.study, folder.outgoing
    except (ConfigError, ValueError, RecursionError):
        return "", False
    return contribution(folder.config, study, folder.ledger, outgoing), is_over(study, folder.config.site, outgoing)

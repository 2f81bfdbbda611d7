"""Records of the coordinator's own journal, `journal.jsonl` in its folder.

One dataclass for each kind. Each record has `number` beside its facts, the database's count of records
(server/continuity.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from configs.records.fields import LATER, Within
from configs.records.kinds import Kind

RUN = "The run's name."
SITE = "The hospital's name."
NAMES = "Host names and addresses in its certificate."


@dataclass(frozen=True, kw_only=True)
class Initialised(Kind, name="initialised"):
    """The coordinator's folder was made."""

    name: Annotated[str, "The consortium's name."]
    names: Annotated[tuple[str, ...], NAMES]


@dataclass(frozen=True, kw_only=True)
class Renewed(Kind, name="renewed"):
    """The coordinator's certificate was made anew."""

    names: Annotated[tuple[str, ...], NAMES]


@dataclass(frozen=True, kw_only=True)
class Admitted(Kind, name="admitted"):
    """A hospital became a member."""

    site: Annotated[str, SITE]
    request: Annotated[str, "Fingerprint of its request.", LATER]
    signing_key: Annotated[str, "Its public signing key.", LATER]
    without_certificate: Annotated[bool, "Whether its message signatures alone say who it is.", LATER]
    replaced: Annotated[str, "Whose keys these replaced, in words; empty where nobody's.", LATER]


@dataclass(frozen=True, kw_only=True)
class Revoked(Kind, name="revoked"):
    """A hospital is no member any more."""

    site: Annotated[str, SITE]


@dataclass(frozen=True, kw_only=True)
class Submitted(Kind, name="submitted"):
    """A study was submitted."""

    run: Annotated[str, RUN]
    study: Annotated[str, "The study's digest."]


@dataclass(frozen=True, kw_only=True)
class Stop(Kind, name="stop"):
    """The consortium asked that a run stop."""

    run: Annotated[str, RUN]


@dataclass(frozen=True, kw_only=True)
class Resume(Kind, name="resume"):
    """The consortium asked that a run go on."""

    run: Annotated[str, RUN]


@dataclass(frozen=True, kw_only=True)
class Started(Kind, name="started"):
    """The coordinator started."""

    listen: Annotated[str, "Where it listens.", LATER]
    word: Annotated[str, "A random word of this start, which the database holds too.", LATER]


@dataclass(frozen=True, kw_only=True)
class Stopped(Kind, name="stopped"):
    """The coordinator stopped."""


@dataclass(frozen=True, kw_only=True)
class Held(Kind, name="held"):
    """Runs wait for a person: the folder was restored, or the coordinator was started to hold."""

    runs: Annotated[tuple[str, ...], "The runs' names."]
    why: Annotated[str, "Why."]


@dataclass(frozen=True, kw_only=True)
class Resumed(Kind, name="resumed"):
    """A run goes on by itself."""

    run: Annotated[str, RUN]
    why: Annotated[str, "Why it had stopped."]


@dataclass(frozen=True, kw_only=True)
class Restarted(Kind, name="restarted"):
    """A part of the coordinator ended and is started again."""

    part: Annotated[str, "`superlink`, `herald` or `gateway`."]
    code: Annotated[int, "Its exit code; negative for a signal.", Within(-(2**31), 2**31)]


@dataclass(frozen=True, kw_only=True)
class Connected(Kind, name="connected"):
    """A hospital's node connected."""

    site: Annotated[str, SITE]


@dataclass(frozen=True, kw_only=True)
class Disconnected(Kind, name="disconnected"):
    """A hospital's node is not connected any more."""

    site: Annotated[str, SITE]


@dataclass(frozen=True, kw_only=True)
class Conducting(Kind, name="conducting"):
    """A run's process was started."""

    run: Annotated[str, RUN]


@dataclass(frozen=True, kw_only=True)
class Interrupted(Kind, name="interrupted"):
    """A run was under way when the coordinator stopped."""

    run: Annotated[str, RUN]


@dataclass(frozen=True, kw_only=True)
class Ended(Kind, name="ended"):
    """A run ended."""

    run: Annotated[str, RUN]
    outcome: Annotated[str, "The run's state: COMPLETE, INCOMPLETE, or QUEUED where it waits for another time."]
    why: Annotated[str, "Why; empty where it is complete."]


KINDS: Mapping[str, type[Kind]] = {
    kind.kind: kind
    for kind in (
        *(Initialised, Renewed, Admitted, Revoked, Submitted, Stop, Resume, Started, Stopped, Held, Resumed),
        *(Restarted, Connected, Disconnected, Conducting, Interrupted, Ended),
    )
}

"""Compatibility of two releases of Archipel, and which hospital waits for an upgrade.

The coordinator's answers say which protocol it talks; only then a reply carries the fields that came after the first.
A study that this release does not know is no attack and no refusal: somebody has to upgrade, and the study waits.

>>> spoken(Frame("hello reply", {"protocol": 1, "site": "lille", "study_sha256": "ab"}), 1).fields
{'protocol': 1, 'site': 'lille', 'study_sha256': 'ab'}
"""

import contextlib
import hashlib
import json
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from configs import wire
from configs.errors import ArchipelError, ReleaseError, WireError
from configs.frame import Frame
from configs.load import study_from
from configs.schema import Study
from configs.shown import DIGITS

RELEASE = metadata.version("archipel")
_AWAITED = "upgrade.json"


def spoken(reply: Frame, protocol: int) -> Frame:
    """Return a reply as the coordinator reads it; one to a proposal says what this hospital can talk, from 2 on.

    Args:
        protocol: the newest that the coordinator has said it talks; 1 where it has said none.
    """
    if reply.form not in wire.FORMS:
        return reply
    fields = wire.without_optional(reply.form, reply.fields)
    if reply.form == "hello reply" and protocol >= 2:
        fields |= {"protocol_max": wire.PROTOCOL_MAX, "release": RELEASE, "arithmetic": wire.ARITHMETIC}
    return reply if fields == dict(reply.fields) else replace(reply, fields=fields)


def proposed(text: str, digest: str, theirs: str) -> Study:
    """Return the study of a proposal.

    Args:
        digest: of the study that was signed.
        theirs: the coordinator's release, empty where it has told none.

    Raises:
        WireError: the proposal is of another study than the signed one, or in no form of this very release.
        ReleaseError: it is the signed one, of another release, and this one cannot read it.
    """
    if hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() != digest:
        raise WireError("hello: expected the study of the signed digest, found another")
    with contextlib.suppress(ValueError, RecursionError, ArchipelError):
        study = study_from(json.loads(text), source="proposal")
        if study.canonical == text:
            return study
    if theirs == RELEASE:
        raise WireError("hello: expected a study in its canonical form, found something else")
    newer = f"archipel {theirs}" if theirs else "the consortium's release"
    raise ReleaseError(
        f"study {digest[:DIGITS]}: expected a study in a form that archipel {RELEASE} knows, found another; it waits "
        f"until {newer} is installed here"
    )


def note_awaited(folder: Path, digest: str, theirs: str) -> None:
    """Keep for `check` that a study waits for another release."""
    (folder / _AWAITED).write_text(json.dumps({"study": digest, "release": theirs, "here": RELEASE}))


def forget_awaited(folder: Path) -> None:
    """Forget it: the study is asked about again if it still waits."""
    (folder / _AWAITED).unlink(missing_ok=True)


def awaited(folder: Path) -> tuple[str, str] | None:
    """Return the study that this release could not read and the release that proposed it (may be empty), or None."""
    try:
        note = json.loads((folder / _AWAITED).read_bytes())
        return (str(note["study"]), str(note["release"])) if note["here"] == RELEASE else None
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""Recovery of a hospital's journal with a broken hash chain.

It says what is wrong, what can still be read, and how the file is put aside. A journal is broken by a disk, by an
editor, by two machines that share a folder, or by somebody who wants to remove a record. Nothing is written behind a
break, so the node does not start. `archipel-site settle` keeps the broken file as it is, counts what it lists, and
begins a new one.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from client.ledger_events import event_of
from client.traces import TRACED, Traces
from configs.errors import ArchipelError, JournalError
from configs.folder import typed
from configs.journal import read
from configs.records.site_journal import Booked, Sent
from configs.site import SiteConfig
from strategies.exchange.keys import SigningKey, verify

MOST_STEPS = 10**9
COUNTED = {kind.kind: kind for kind in (Booked, Sent)}  # records that can only add to what is spent


@contextmanager
def advised(config: SiteConfig) -> Iterator[None]:
    """Say beside a broken journal what it means, and what a person has to run."""
    try:
        yield
    except JournalError as error:
        raise JournalError(
            f"{error}. Nothing trains here until a person has looked; the records before that one hold, the file shows "
            f"what happened: keep it. Stop the node, and run: {typed('archipel-site', config.folder, 'settle')}"
        ) from None


def salvaged(config: SiteConfig, key: SigningKey) -> tuple[Traces, str]:
    """Return what a journal says of releases, and where it is broken (empty where it holds, signatures too).

    Behind a break only what adds to the spending is taken in.
    """
    traces, count = Traces(), 0
    if not config.journal.exists():
        return traces, ""
    try:
        for record in read(config.journal, check=lambda digest, signature: verify(key.public, digest, signature)):
            traces.take(record.of(*TRACED))
            count += 1
    except JournalError as error:
        for line in config.journal.read_bytes().split(b"\n")[count:]:
            with suppress(ArchipelError, ValueError, KeyError, TypeError, RecursionError):
                _take(traces, json.loads(line))
        return traces, str(error)
    return traces, ""


def put_aside(config: SiteConfig, name: str) -> dict[str, str]:
    """Rename a broken journal; what a new one says of it."""
    digest = hashlib.sha256(config.journal.read_bytes()).hexdigest()
    config.journal.rename(config.folder / name)
    return {"former": name, "former_sha256": digest}


def _take(traces: Traces, record: Any) -> None:
    kind, facts = record["kind"], record["facts"]
    if kind not in COUNTED:
        return
    if kind == Booked.kind:
        facts = {**facts, "releases": [row for row in facts["releases"] if _is_release(row)]}
    traces.take(COUNTED[kind].from_facts(facts))


def _is_release(row: Any) -> bool:
    """Return whether a row has the form of the ledger's, so that it can be booked."""
    forms = (str, str, int, int, str, float, float, int, int | None, float | None, str | None)
    if not isinstance(row, list) or len(row) not in (len(forms) - 1, len(forms)):  # earlier ones lack the last
        return False
    if not all(isinstance(value, form) for value, form in zip(row, forms, strict=False)):
        return False
    kind, noise_multiplier, sampling_rate, steps = row[4:8]
    event_of(kind, noise_multiplier, sampling_rate, steps)
    return bool(0 < noise_multiplier < math.inf and 0 < sampling_rate <= 1 and 0 < steps < MOST_STEPS)

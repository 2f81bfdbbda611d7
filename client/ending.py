"""The end of a study at the hospital: how it ended, and the model that came of it, kept in `models/`.

What the coordinator tells is hostile until it is judged: the arrays are those of the study and finite, the outcome fits
the rounds, and a study that was complete does not end again. The model is written first, DIGEST.json last, so that it
means a whole one. No patient is read for it, and the answer is the same whatever is kept.
"""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path

from client import after_end
from client.kept_models import kept, model_path, record_path
from configs import wire
from configs.errors import WireError
from configs.files import write_atomically
from configs.frame import Frame
from configs.records import fields
from configs.records.kept_model import KeptModel
from configs.schema import Study
from configs.seal import Statement
from configs.site import SiteConfig
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import received
from strategies.exchange.tensors import safetensors
from strategies.models.registry import study_parameters

FORM = wire.ASKS[wire.END]


def reply(study: Study) -> Frame:
    """Return the one answer to an end."""
    return Frame(f"{FORM} reply", {"study_sha256": study.sha256})


def judged(study: Study, frame: Frame) -> Arrays:
    """Return the model that came with an end, empty where none did.

    Raises:
        WireError: the message contradicts the study or itself.
    """
    content, planned = received(FORM, frame, study_parameters(study)), study.training.rounds
    outcome, code, rounds = (content.fields[name] for name in ("outcome", "code", "rounds"))
    if outcome not in (wire.COMPLETE, wire.INCOMPLETE) or code not in wire.ENDS or rounds > planned:
        raise WireError("end: expected an outcome, a code of configs/wire.py and the study's rounds, found others")
    if (outcome == wire.COMPLETE) != (code == 0) or (outcome == wire.COMPLETE and rounds != planned):
        raise WireError("end: expected COMPLETE after every planned round, and only then, found a contradiction")
    if bool(content.arrays) != bool(rounds and study_parameters(study)):
        raise WireError("end: expected a model where a round was done, and only then, found otherwise")
    return content.arrays


def keep(config: SiteConfig, study: Study, statement: Statement, frame: Frame) -> KeptModel | None:
    """Keep an end, whole or not at all; None where the study was complete before, or had come further.

    Raises:
        WireError: it contradicts the study or itself. OSError: the disk is full; nothing is kept.
    """
    arrays = judged(study, frame)
    outcome, code, rounds = str(frame.fields["outcome"]), int(frame.fields["code"]), int(frame.fields["rounds"])
    before = kept(config, study.sha256)
    if before is not None and (
        before.outcome == wire.COMPLETE or (outcome != wire.COMPLETE and before.rounds > rounds)
    ):
        return None
    config.models.mkdir(mode=0o700, exist_ok=True)
    digest = _write(model_path(config, study.sha256), arrays) if arrays else ""
    after_end.forget(config, study.sha256)
    end = KeptModel(
        study=study.sha256,
        name=study.name,
        outcome=outcome,
        code=code,
        why=wire.ENDS[code],
        rounds=rounds,
        run=statement.run,
        coordinator=config.coordinator,
        model_sha256=digest,
        received=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    text = json.dumps(fields.plain(end), indent=1) + "\n"
    write_atomically(record_path(config, study.sha256), text.encode("ascii"), private=True)
    return end


def _write(path: Path, arrays: Arrays) -> str:
    hasher = hashlib.sha256()

    def write(part: Path) -> None:
        with part.open("wb") as file:
            for piece in safetensors(arrays):
                hasher.update(piece)
                file.write(piece)

    write_atomically(path, write, private=True)
    return hasher.hexdigest()

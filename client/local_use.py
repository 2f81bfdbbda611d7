"""`archipel-site predict` and `evaluate`: a study's final model on this hospital's own patients.

Rows are read by a fenced process (client/scoring.py). What comes of them is shown or written here, for the person who
asked; who asked, when, and of which model is in the journal.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from subprocess import TimeoutExpired
from typing import TypeVar

from client.admission import Admission
from client.data_check import START_TIMEOUT_S
from client.folder import SiteFolder
from client.isolation import worker_variables
from client.scoring import EVALUATE, PREDICT, Request
from configs.errors import RunError
from configs.files import write_atomically
from configs.parts import run
from configs.records import fields
from configs.records.local_use import LocalFigures, Recalibration, Scores
from configs.records.site_journal import EvaluatedHere, Predicted
from configs.site import SiteConfig

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Wanted:
    """The model that a person wants: of a study, by its first digits; the one kept here unless another is named."""

    digest: str
    model: Path | None = None
    personal: bool = False


def predict(
    folder: SiteFolder, wanted: Wanted, out: Path, data: Path | None, person: str, *, recalibrate: bool
) -> Iterator[str]:
    """Write scores into a new file of this user alone, whole or not at all, and yield lines for people.

    Raises:
        RunError: the rows or the model cannot be used, or the file is there already. OSError: it cannot be written.
    """
    if out.exists():
        raise RunError(f"--out {out}: expected a new file, found one; give another name, or remove it")
    admission = folder.study(wanted.digest)
    request = replace(_request(PREDICT, admission, wanted), data=_file(data, "--data"), recalibrate=recalibrate)
    scores = _asked(folder.config, admission, request, Scores)
    if scores.recalibration is not None:
        _keep(folder.config, scores.recalibration)
    folder.audit.note(
        Predicted(
            study=admission.sha256,
            name=admission.name,
            by=person,
            model_sha256=scores.model_sha256,
            rows=scores.rows,
            recalibrated=scores.recalibration is not None,
        )
    )
    write_atomically(out, scores.csv.encode(), private=True)
    if scores.mark:
        yield f"WARNING  {scores.mark}"
    if (kept := scores.recalibration) is not None:
        patients = f"{kept.events:,} training patients with the outcome and {kept.others:,} without"
        yield f"recalibrated ({kept.method}) on {patients}"
    yield from scores.oddities
    yield f"{scores.rows:,} rows scored by model {scores.model_sha256[:16]}: {out} (for this hospital alone)"


def evaluate(folder: SiteFolder, wanted: Wanted, person: str) -> LocalFigures:
    """Return how good a study's model is on this hospital's own test patients.

    Raises:
        RunError: the data or the model cannot be used.
    """
    admission = folder.study(wanted.digest)
    figures = _asked(folder.config, admission, _request(EVALUATE, admission, wanted), LocalFigures)
    folder.audit.note(
        EvaluatedHere(study=admission.sha256, name=admission.name, by=person, model_sha256=figures.model_sha256)
    )
    return figures


def _request(task: str, admission: Admission, wanted: Wanted) -> Request:
    """Return what is asked of the process that reads patients.

    Raises:
        RunError: two models are named, or a file is none.
    """
    if wanted.personal and wanted.model is not None:
        raise RunError("--personal, --model: expected one of the two, found both; keep one")
    return Request(task, admission.sha256, model=_file(wanted.model, "--model"), personal=wanted.personal)


def _file(path: Path | None, option: str) -> str:
    """Return the absolute path of a file that was given, empty where none was.

    Raises:
        RunError: it is no file.
    """
    if path is not None and not path.is_file():
        raise RunError(f"{option} {path}: expected a file, found none; correct the path")
    return "" if path is None else str(path.resolve())


def _asked(config: SiteConfig, admission: Admission, request: Request, kind: type[Answer]) -> Answer:
    """Return what the fenced process answers.

    Raises:
        RunError: it cannot, or not in time.
    """
    dataset = config.dataset(admission.name)
    timeout_s = START_TIMEOUT_S + (dataset.source.reading_time_s + dataset.source.records_time_s if dataset else 0)
    arguments = (str(config.folder), json.dumps(asdict(request)))
    variables = worker_variables(config)
    try:
        done = run("client.scoring", *arguments, folder=config.folder, also=variables, timeout_s=timeout_s)
    except TimeoutExpired:
        raise RunError(f"{admission.name}: no scores came in {timeout_s} s") from None
    if done.returncode:
        why = done.stdout.strip() if done.returncode == 3 else "the process ended before it was done"
        raise RunError(f"{admission.name}: {why}")
    return fields.read(kind, json.loads(done.stdout))


def _keep(config: SiteConfig, recalibration: Recalibration) -> None:
    """Keep a recalibration, in the place of an earlier one."""
    folder = config.personal / recalibration.study
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps(fields.plain(recalibration), indent=1) + "\n"
    write_atomically(folder / "recalibration.json", text.encode("ascii"), private=True)

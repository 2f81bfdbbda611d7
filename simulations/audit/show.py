"""The display of an audit: progress, a table, and its files audit.json and audit.html."""

import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from configs.files import write_atomically
from configs.records.fields import plain
from configs.schema import PER_PATIENT, Study
from server.recorded import new_folder
from simulations.audit.audit_page import render
from simulations.audit.auditor import audit
from simulations.audit.counting import audit_statistics
from simulations.audit.effort import FULL, Effort
from simulations.audit.verdict import FALSE_ALARMS, Audit

AUDITS: dict[str, Callable[..., Audit]] = {
    "training": audit,
    "statistics": audit_statistics,
}  # by the study's procedure

_WIDTH = 66  # of a part's words
_STYLES = {"passed": "green", "FAILED": "bold red", "cannot say": "yellow"}


def audit_and_show(study: Study, run: Path | None, out: Path | None, seed: int | None, effort: Effort = FULL) -> int:
    """Audit, print, write; 1 if a part failed.

    Args:
        run: a simulated run's folder, whose ledgers are replayed too; the audit is then written there.

    Raises:
        ArchipelError: there is nothing to audit; nothing was written.
    """
    console = _console()
    with _folder(study, run, out) as folder:
        done = AUDITS[study.procedure](
            study, seed=seed, effort=effort, run=run, progress=lambda text: console.print(f"{text} ...")
        )
    console.print(_table(done))
    console.print(f"epsilon: {PER_PATIENT}, at each hospital", style="dim", highlight=False)
    console.print(
        f"{done.verdict} after {done.seconds:.1f} s. A healthy run is accused in less than {100 * FALSE_ALARMS:g} % of "
        "audits; a pass proves no absence of mistakes.",
        highlight=False,
        soft_wrap=True,
    )
    write(done, folder)  # after the verdict, which a full disk must not swallow
    console.print(f"report  {folder / 'audit.html'}", highlight=False, soft_wrap=True)
    return 1 if done.verdict == "FAILED" else 0


@contextmanager
def _folder(study: Study, run: Path | None, out: Path | None) -> Iterator[Path]:
    """Make the audit's folder: writable before anything is computed, removed if it fails.

    Raises:
        OSError: it cannot be made, or not be written.
    """
    if run is not None and out is None:
        with TemporaryFile(dir=run):
            pass
        yield run
        return
    out = out or Path("runs")
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    folder = new_folder(out, f"{study.name}-audit")
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            for created in (folder, *missing):
                created.rmdir()
        raise


def write(done: Audit, folder: Path) -> None:
    """audit.json and audit.html."""
    write_atomically(folder / "audit.json", (json.dumps(plain(done.record), indent=1) + "\n").encode())
    write_atomically(folder / "audit.html", render(done).encode())


def _table(done: Audit) -> Table:
    table = Table(title=f"{done.study}: privacy audit", title_justify="left", box=box.SIMPLE_HEAD)
    for title in ("part", "verdict", "what was found"):
        table.add_column(title, no_wrap=title != "what was found")
    for part in done.parts:
        words = f"{part.figure}\n{textwrap.fill(part.words, _WIDTH)}"
        table.add_row(part.key, Text(part.verdict, _STYLES[part.verdict]), words)
    return table


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 140, markup=False, emoji=False)

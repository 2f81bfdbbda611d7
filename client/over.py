"""The node's part at the end of a study: it keeps what it is told, answers, and then lets the worker go on.

The answer leaves before anything is made of patients, so that no time follows from them.
"""

import logging
import time
from contextlib import suppress

from client import after_end, ending, kept_models
from client.admission import Admission
from client.books import Books
from client.timing import quantum_s, wait_until_public
from client.worker_process import WorkerPort
from configs.errors import ArchipelError, RunError, WireError
from configs.frame import Frame
from configs.records.site_journal import Ended, Ignored, Personalised
from configs.schema import Study
from configs.seal import Statement
from configs.shown import DIGITS
from configs.site import SiteConfig

log = logging.getLogger("archipel.node")


class Over:
    """Studies that have ended."""

    def __init__(self, config: SiteConfig, books: Books, worker: WorkerPort) -> None:
        self._config, self._audit, self._admissions, self._worker = config, books.audit, books.admissions, worker
        self._due: Study | None = None  # it has just ended, and something is to be done after its end

    def hear(self, study: Study, statement: Statement, frame: Frame) -> Frame:
        """Keep how a study ended, and return the reply, which is the same whatever is kept.

        Raises:
            WireError: the message contradicts the study or itself. OSError: the disk is full.
        """
        end = ending.keep(self._config, study, statement, frame)
        if end is None:
            self._audit.note(Ignored(what="end", why="the study was complete before, or had come further"))
            return ending.reply(study)
        digest = end.model_sha256
        self._audit.note(
            Ended(study=end.study, outcome=end.outcome, code=end.code, rounds=end.rounds, model_sha256=digest)
        )
        log.info("study %s is over: %s; kept in %s", end.study[:DIGITS], end.outcome, self._config.models)
        self._due = study if end.has_model and after_end.asked_of(study) else None
        return ending.reply(study)

    def go_on(self) -> None:
        """Do what the study that was heard last asks for after its end; its reply has left."""
        if (study := self._due) is not None:
            self._due = None
            self._audit.note(Personalised(study=study.sha256))
            self._ask(study)

    def _ask(self, study: Study) -> None:
        """Let the worker do what a study asks for after its end; how long that takes tells of no row."""
        started = time.monotonic()
        try:
            self._worker.ask(Frame(after_end.FORM, {"study_sha256": study.sha256}), 0)
        except (RunError, WireError) as error:
            log.error("study %s, after its end: %s", study.sha256[:DIGITS], error)
        wait_until_public(started, quantum_s(study, self._config.site, self._config.kit_run))

    def catch_up(self) -> None:
        """Do what an earlier process did not come to do after the end of a study."""
        for admission in self._admissions.all():
            if admission.state == "approved":
                with suppress(ArchipelError):  # it was kept under a rule that this release does not know
                    self._catch_up(admission)

    def _catch_up(self, admission: Admission) -> None:
        end = kept_models.kept(self._config, admission.sha256)
        if end is None or not end.has_model or not after_end.asked_of(study := admission.study):
            return
        if not after_end.personal_path(self._config, end.study, end.rounds).exists():
            self._ask(study)

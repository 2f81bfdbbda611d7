"""The procedure `training`: rounds of model updates with checkpoints, then final releases.

The final releases are what the study asks of the final model. Each round reads like the protocol: ask, accept, combine,
write down, keep a checkpoint.
"""

import logging
import threading
import time
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from flwr.app import Message

from configs import wire
from configs.errors import ImplausibleError, RunError, WireError
from configs.records.run_journal import Evaluated, Refused, Resumed
from server.checkpoint import Checkpoint
from server.outcome import Outcome, Released, RoundRecord
from server.procedures.base import Procedure
from server.session import Session, released, sent_bytes
from strategies.exchange.arrays import Arrays, from_record, payload_bytes, to_record
from strategies.exchange.halves import FROM_BYTES
from strategies.exchange.messages import arrays_in, content, read
from strategies.federated import mean
from strategies.federated.hospitals import Hospitals
from strategies.federated.registry import strategy_of
from strategies.learning import learning_of
from strategies.models.registry import study_parameters
from strategies.privacy.modes.registry import mode_of
from strategies.releases.base import Judge
from strategies.releases.plausible import prepare
from strategies.releases.registry import MODEL_UPDATE, releases_after_training

log = logging.getLogger("archipel.server")


class TrainingProcedure(Procedure):
    """Rounds of model updates, combined by the study's strategy."""

    name: ClassVar[str] = "training"
    makes_model: ClassVar[bool] = True

    def run(self, session: Session) -> Outcome:
        """Gather the hospitals, train all rounds, and ask once for what the study asks of the final model."""
        if session.deployment:  # while hospitals are waited for
            threading.Thread(target=prepare, args=(session.study,), daemon=True).start()
        training = _Training(session)
        restored = session.checkpoints.load() if session.checkpoints else None
        opened = session.open(resumed=restored is not None)
        outcome = session.outcome(training.model)
        if not opened:
            return session.end(outcome)
        trainers = session.trainers
        nodes = {**trainers.asked, **trainers.away}
        strategy = strategy_of(session.study, nodes, mean.site_weights(session.study, list(nodes)))
        if restored:
            training.restore(restored, strategy)
            del restored  # a large model is held once
        while session.rounds.outcome == "RUNNING":
            if session.stopped:
                why = f"stopped by the consortium after round {session.rounds.done}"
                session.rounds = session.rounds.abandon(why, wire.STOPPED)
                break
            session.look_again()
            members = session.trainers.asked
            strategy.address(members, mean.site_weights(session.study, list(members)))
            outcome.records.append(training.round(strategy))
        outcome.model = training.final_model()
        if session.rounds.outcome == "COMPLETE":
            session.look_again()
            outcome.released = _asked_once(session, outcome.model)
        return session.end(outcome)


class _Training:
    """The model between the rounds, and its average over the last of them."""

    def __init__(self, session: Session) -> None:
        self._session, self._study = session, session.study
        self._parameters, self._all = MODEL_UPDATE.arrays(self._study), study_parameters(self._study)
        self.model = self._held(session.initial or learning_of(self._study).initial(self._study.seed))
        self._sums: mean.Sums = {}
        self._averaged = 0
        self._implausible: set[str] = set()  # hospitals that sent a refused update last

    def round(self, strategy: Hospitals) -> RoundRecord:
        """Ask for one round's updates and combine them."""
        session, started = self._session, time.monotonic()
        number, trainers = session.rounds.current, session.trainers
        nodes = trainers.asked
        judge = MODEL_UPDATE.judge(self._study, self._shared, strategy.sent)
        instructions = self._instructions(strategy, number)
        if sum(array.nbytes for array in self.model.values()) >= FROM_BYTES:
            threading.Thread(target=judge.work_out, args=(list(nodes),), daemon=True).start()
        answers = session.ask(instructions, number, lambda reply, site: self._accepted(reply, site, judge), trainers)
        sent = {site: payload_bytes(arrays_in(reply.content)) for site, reply in answers.accepted.items()}
        record = RoundRecord(number, sent, answers.missing, time.monotonic() - started, answers.made_anew)
        if session.stopped and len(sent) < len(nodes):
            session.rounds = session.rounds.abandon(f"stopped by the consortium in round {number}", wire.STOPPED)
            return record
        refused = sorted(self._implausible & set(answers.missing))
        session.close(sent, answers, "".join(f"; {site}: {answers.missing[site]}" for site in refused))
        if session.rounds.outcome != "INCOMPLETE":
            self._combine(strategy, number, list(answers.accepted), list(answers.accepted.values()))
        # The journal first: what was received is on record even if the checkpoint never comes to be.
        session.note_round(record)
        if session.rounds.outcome != "INCOMPLETE":
            self._remember(strategy, number)
        session.observer(record, self.model)
        return record

    def _instructions(self, strategy: Hospitals, number: int) -> list[Message]:
        fields: dict[str, str | int] = {"study_sha256": self._study.sha256, "round": number}
        instruction = content(MODEL_UPDATE.form, fields, self._shared, self._parameters)
        shared, config = arrays_in(instruction), instruction.config_records[wire.CONFIG]
        return list(strategy.configure_train(number, shared, config, self._session.grid))

    def _accepted(self, reply: Message, site: str, judge: Judge) -> Message:
        """Accept a hospital's model, unless it is further from the shared one than an honest one can be."""
        update = read(MODEL_UPDATE.reply, reply.content, self._parameters).arrays
        try:
            judge.require(site, update)
        except ImplausibleError as error:
            self._implausible.add(site)
            self._session.write(Refused(site=site, round=self._session.rounds.current, code=0, reason=str(error)))
            log.warning("%s: %s", site, error)
            raise
        self._implausible.discard(site)
        return reply

    def _combine(self, strategy: Hospitals, number: int, sites: list[str], updates: list[Message]) -> None:
        aggregated, _ = strategy.aggregate_train(number, updates)
        if aggregated is None:
            raise RunError(f"round {number}: the strategy made no model of {len(updates)} replies; this is a bug")
        try:
            combined = from_record(aggregated, self._parameters)
            weights, seeded = mean.site_weights(self._study, sites), self._session.deployment is None
            combined = mode_of(self._study).combine(self._study, combined, weights, number, seeded=seeded)
            self.model = self._whole(combined)
        except WireError:
            rounds, why = self._session.rounds, f"round {number}: the hospitals' models add up to no finite model"
            self._session.rounds = rounds.abandon(why, wire.NOT_FINITE)

    def _held(self, model: Arrays) -> Arrays:
        """Return a model as it will be sent: from here on it is not copied."""
        return from_record(to_record(model), self._all)

    @property
    def _shared(self) -> Arrays:
        """Return the part of the model that crosses the wire."""
        return {name: self.model[name] for name in self._parameters}

    def _whole(self, shared: Arrays) -> Arrays:
        """Return the model with these shared arrays; what hospitals keep to themselves is here as it began."""
        return {name: shared.get(name, self.model[name]) for name in self._all}

    def _remember(self, strategy: Hospitals, number: int) -> None:
        """Average the last iterates, and keep a checkpoint."""
        checkpoints = self._session.checkpoints
        if number > self._study.training.rounds - self._study.averaged_rounds:
            zeros = checkpoints.zeros if checkpoints else np.zeros
            self._sums, self._averaged = mean.add(self._sums, self.model, zeros), self._averaged + 1
        if checkpoints:
            state = strategy.optimizer_state()
            checkpoints.save(Checkpoint(number, self.model, state, self._sums, self._averaged))

    def restore(self, checkpoint: Checkpoint, strategy: Hospitals) -> None:
        """Go on from a checkpoint."""
        self.model = self._held(checkpoint.model)
        self._sums, self._averaged = dict(checkpoint.average), checkpoint.averaged
        strategy.restore(to_record(self._shared), checkpoint.optimizer)
        self._session.rounds = self._session.rounds.resume(checkpoint.round)
        self._session.write(Resumed(after_round=checkpoint.round))

    def final_model(self) -> Arrays:
        """Return the shared model, or the average of the last rounds' where the study asks for it."""
        return mean.mean_of(self._sums, self._averaged) if self._averaged else self.model


def _asked_once(session: Session, model: Arrays) -> Mapping[str, Released]:
    """Ask each hospital once for what the study asks of the final model; every answer is optional."""
    answered = {}
    for kind in releases_after_training(session.study):
        answers = session.ask_once(kind, model)
        sent, anew = sent_bytes(answers.accepted), dict(answers.made_anew)
        name = kind.name if kind.number is None else ""
        session.write(Evaluated(contributed=sent, missing=dict(answers.missing), attempts=anew, release=name))
        answered[kind.name] = released(answers)
    return answered

"""The coordinator's Flower ServerApp: gather the hospitals, conduct the rounds, keep a checkpoint of each.

The study comes in, models go out; what a hospital replies is checked against configs/wire.py before anything uses it.
`conduct` takes any Flower `Grid`, so a simulation and a deployment run these very lines.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from flwr.app import Context, Message
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from configs import wire
from configs.errors import ImplausibleError, RunError, WireError
from configs.journal import Journal
from configs.records import result as results
from configs.records.kinds import Kind
from configs.records.run_journal import Again, End, Evaluated, Gathered, Joined, Refused, Resumed, Round
from configs.schema import Study
from server.attempts import Attempts
from server.checkpoint import Checkpoint, Checkpoints
from server.gathering import Gathering, Patience
from server.proposals import Post, Roster, gather_once, plain, shortage
from server.rounds import Rounds
from server.statistics import Counted, read_counts
from strategies import aggregate
from strategies.exchange.arrays import Arrays, from_record, payload_bytes, to_record
from strategies.exchange.halves import FROM_BYTES
from strategies.exchange.messages import arrays_in, content, read
from strategies.federated.hospitals import Hospitals
from strategies.federated.registry import strategy_of
from strategies.learning import learning_of
from strategies.models.registry import study_parameters
from strategies.privacy.modes.registry import mode_of
from strategies.releases.plausible import Plausibility, prepare
from strategies.releases.registry import arrays_of
from strategies.releases.score_histogram import require_plausible

log = logging.getLogger("archipel.server")
LONGEST_REST_S = 1.0  # between two looks whether somebody asked to stop
LATE = "no reply in time"
ROUND_TIMEOUTS, LEAST_PART = 2, 0.5  # a round's attempts last so many time-outs; one is begun with half of one left
Observer = Callable[["RoundRecord", Arrays], None]
Accepted = TypeVar("Accepted")


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round: bytes that each hospital sent, and a plain reason for each that did not.

    `missing` names every hospital of the study that did not contribute, those that never took part or were away too. So
    it stands in the journal (kind `round`) and in metrics.json (`rounds`, a list: `round`, `contributed`, `missing`,
    `seconds`); why a hospital did not take part at the start stands in the journal (`gathered`, its `missing`) and in
    metrics.json (`absent`).
    `attempts` names the hospitals whose release was lost and asked for anew, with the last attempt; the journal has it
    where there were any.
    """

    round: int
    contributed: Mapping[str, int]
    missing: Mapping[str, str]
    seconds: float
    attempts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Deployment:
    """What only real hospitals need: time to connect and to approve, who is connected, and a way to stop.

    `post` carries proposals, `presence` is told what each hospital does, `stopped` is asked between rounds. `ready` are
    the hospitals that are known to take part (server/herald.py); where their quorum does not come, a run is postponed.
    """

    post: Post
    patience: Patience
    presence: Callable[[str, str], None] = lambda site, state: None
    stopped: Callable[[], bool] = lambda: False
    ready: Sequence[str] = ()


class PostponedError(RunError):
    """A run's hospitals are not there now: it is for another time."""


@dataclass(frozen=True)
class Released:
    """What hospitals said of the final model, where the study asks: noisy histograms, and why others sent none."""

    histograms: Mapping[str, NDArray[np.float32]]  # hospital -> (2, bins)
    missing: Mapping[str, str]
    noise_multiplier: float

    @property
    def record(self) -> results.Released:
        """Return it as metrics.json has it."""
        histograms = {site: tuple(map(tuple, counts.tolist())) for site, counts in sorted(self.histograms.items())}
        return results.Released(histograms, self.missing, self.noise_multiplier)


@dataclass
class Conducted:
    """The end of a run. `model` is the shared model after the last round, or the average the study asks for."""

    rounds: Rounds
    model: Arrays
    records: list[RoundRecord] = field(default_factory=list)
    hello_bytes: Mapping[str, int] = field(default_factory=dict)
    released: Released | None = None
    statistics: Counted | None = None


def make_app(
    study: Study,
    *,
    checkpoints: Checkpoints | None = None,
    journal: Journal | None = None,
    observer: Observer = lambda record, model: None,
    initial: Arrays | None = None,
    done: Callable[[Conducted], None] = lambda conducted: None,
) -> ServerApp:
    """A ServerApp that conducts one study and hands the result to `done`."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        done(conduct(grid, study, checkpoints=checkpoints, journal=journal, observer=observer, initial=initial))

    return app


def conduct(
    grid: Grid,
    study: Study,
    *,
    checkpoints: Checkpoints | None = None,
    journal: Journal | None = None,
    observer: Observer = lambda record, model: None,
    initial: Arrays | None = None,
    deployment: Deployment | None = None,
) -> Conducted:
    """Run a study to its end, from its newest checkpoint if there is one.

    Args:
        initial: another starting point than the study's own, for comparisons that must begin where another began.
        deployment: between machines; without it every hospital is there at once and answers at once.

    Raises:
        CheckpointError: the checkpoint cannot be used.
        PostponedError: hospitals that were ready are not there.
    """
    conductor = _Conductor(grid, study, checkpoints, journal, observer, initial, deployment)
    return conductor.run()


class _Conductor:
    """One run's moving parts, so that the round below reads like the protocol."""

    def __init__(
        self,
        grid: Grid,
        study: Study,
        checkpoints: Checkpoints | None,
        journal: Journal | None,
        observer: Observer,
        initial: Arrays | None,
        deployment: Deployment | None = None,
    ) -> None:
        self.grid, self.study, self.observer, self.deployment = grid, study, observer, deployment
        self.checkpoints, self.journal = checkpoints, journal
        self.gathering: Gathering | None = None
        self.parameters = study_parameters(study)
        self.rounds = Rounds(study.training.rounds, study.training.quorum)
        self.model = self._held(initial or (learning_of(study).initial(study.seed) if study.trains else {}))
        self.sums: aggregate.Sums = {}
        self.averaged = 0
        self.implausible: set[str] = set()  # hospitals whose last update was refused

    def run(self) -> Conducted:
        if self.deployment and self.study.trains:  # while hospitals are waited for
            threading.Thread(target=prepare, args=(self.study,), daemon=True).start()
        restored = self.checkpoints.load() if self.checkpoints else None
        roster, hello_bytes = self._gather()
        result = Conducted(self.rounds, {}, hello_bytes=hello_bytes)
        if self._stopped() and not restored:
            return self._end(result, "stopped by the consortium before it began")
        nodes = {**roster.asked, **roster.away}
        if len(nodes) < self.study.training.quorum:
            if self._stopped():
                return self._end(result, "stopped by the consortium before it went on")
            gathering = self.gathering
            if gathering is not None and self.deployment and self.deployment.ready and not gathering.hopeless:
                raise PostponedError("hospitals that take part are not connected any more")
            return self._end(result, shortage(nodes, self.study.training.quorum, roster.missing))
        if not self.study.trains:
            return self._count(result, roster)
        strategy = strategy_of(self.study, nodes, aggregate.site_weights(self.study, list(nodes)))
        if restored:
            self._restore(restored, strategy)
            del restored  # a large model is held once
        while self.rounds.outcome == "RUNNING":
            if self._stopped():
                self.rounds = self.rounds.abandon(f"stopped by the consortium after round {self.rounds.done}")
                break
            roster = self._roster(roster)
            strategy.address(roster.asked, aggregate.site_weights(self.study, list(roster.asked)))
            result.records.append(self._round(strategy, roster))
        result.rounds, result.model = self.rounds, self._final_model()
        if self.rounds.outcome == "COMPLETE":
            result.released = self._evaluate(result.model, self._roster(roster))
        self._write(End(outcome=self.rounds.outcome, why=self.rounds.why))
        return result

    def _end(self, result: Conducted, why: str) -> Conducted:
        """The end of a run before its first round."""
        result.model, result.rounds = self.model, self.rounds.abandon(why)
        self._write(End(outcome=result.rounds.outcome, why=result.rounds.why))
        return result

    def _gather(self) -> tuple[Roster, dict[str, int]]:
        """Propose the study to its hospitals; return who takes part, and the bytes that each sent."""
        if self.deployment is None:
            roster, sent = gather_once(self.grid, self.study, self.study.training.round_timeout_s, self._write)
        else:
            deployment = self.deployment
            gathering = self.gathering = Gathering(
                self.study,
                deployment.post,
                deployment.patience,
                presence=deployment.presence,
                write=self._write,
                expected=deployment.ready,
            )
            gathering.step()
            while not gathering.over and not self._stopped():
                self._rest(gathering.rest_s)
                gathering.step()
            roster, sent = gathering.roster(), dict(gathering.bytes)
            for site, why in roster.missing.items():
                deployment.presence(site, why)
        sites = tuple(sorted({*roster.asked, *roster.away}))
        missing = dict(roster.missing)
        self._write(Gathered(study_sha256=self.study.sha256, sites=sites, bytes=sent, missing=missing))
        return roster, sent

    def _roster(self, last: Roster) -> Roster:
        """Name who is asked now; hospitals that came since the last time take part from here on."""
        if self.gathering is None:
            return last
        roster = self.gathering.roster()
        new = sorted({*roster.asked, *roster.away} - {*last.asked, *last.away})
        if new:
            sent = {site: self.gathering.bytes[site] for site in new}
            self._write(Joined(sites=tuple(new), bytes=sent, before_round=self.rounds.current))
        return roster

    def _stopped(self) -> bool:
        return self.deployment is not None and self.deployment.stopped()

    def _rest(self, seconds: float) -> None:
        """Wait, but not longer than a second once the consortium asked to stop."""
        over = time.monotonic() + seconds
        while (left := over - time.monotonic()) > 0 and not self._stopped():
            time.sleep(min(left, LONGEST_REST_S))

    def _round(self, strategy: Hospitals, roster: Roster) -> RoundRecord:
        started = time.monotonic()
        number, nodes = self.rounds.current, roster.asked
        plausibility = Plausibility(self.study, self.model, strategy.sent)
        instructions = self._instructions(strategy, number)
        if sum(array.nbytes for array in self.model.values()) >= FROM_BYTES:
            threading.Thread(target=plausibility.work_out, args=(list(nodes),), daemon=True).start()
        replies, attempts = self._ask(instructions, roster, number)
        valid, missing = self._judge(replies, roster, lambda reply, site: self._read_model(reply, site, plausibility))
        sent = {site: payload_bytes(arrays_in(reply.content)) for site, reply in valid.items()}
        if self._stopped() and len(sent) < len(nodes):
            self.rounds = self.rounds.abandon(f"stopped by the consortium in round {number}")
            return RoundRecord(number, sent, missing, time.monotonic() - started, attempts.made)
        self._close(sent, attempts, missing)
        record = RoundRecord(number, sent, missing, time.monotonic() - started, attempts.made)
        if self.rounds.outcome != "INCOMPLETE":
            aggregated, _ = strategy.aggregate_train(number, list(valid.values()))
            if aggregated is None:
                raise RunError(f"round {number}: the strategy made no model of {len(valid)} replies; this is a bug")
            try:
                self.model = self._combined(from_record(aggregated, self.parameters), number, sent)
            except WireError:
                self.rounds = self.rounds.abandon(f"round {number}: the hospitals' models add up to no finite model")
        # The journal first: what was received is on record even if the checkpoint never comes to be.
        self._note_round(record)
        if self.rounds.outcome != "INCOMPLETE":
            self._remember(strategy, number)
        self.observer(record, self.model)
        return record

    def _combined(self, model: Arrays, number: int, contributed: Iterable[str]) -> Arrays:
        """Return the round's model as the study's privacy mode makes it of what the strategy made."""
        weights = aggregate.site_weights(self.study, list(contributed))
        seeded = self.deployment is None
        return mode_of(self.study).combine(self.study, model, weights, number, seeded=seeded)

    def _close(self, contributed: Mapping[str, int], attempts: Attempts, missing: Mapping[str, str]) -> None:
        """Judge the open round by who contributed; say which releases no resume can have, and what was refused."""
        self.rounds = self.rounds.close(set(contributed))
        if self.rounds.outcome == "INCOMPLETE":
            refused = "".join(f"; {site}: {missing[site]}" for site in sorted(self.implausible & set(missing)))
            self.rounds = self.rounds.abandon(attempts.explained(self.rounds.why) + refused)

    def _note_round(self, record: RoundRecord) -> None:
        self._write(
            Round(
                attempts=record.attempts,
                contributed=record.contributed,
                missing=record.missing,
                round=record.round,
                seconds=round(record.seconds, 4),
            )
        )

    def _ask(self, asked: list[Message], roster: Roster, number: int) -> tuple[list[Message], Attempts]:
        """Send one release's instructions; hospitals whose release was lost are asked anew, as long as there is spare.

        All attempts together last at most two time-outs, however late each hospital says that it lost its release.

        Args:
            number: the round, 0 of the evaluation.
        """
        attempts, timeout_s = Attempts(self.study, asked, roster.asked), self.study.training.round_timeout_s
        until = time.monotonic() + ROUND_TIMEOUTS * timeout_s
        replies = newest = self._exchange(asked)
        while not self._stopped():
            left_s = until - time.monotonic()
            attempts.note(newest)
            if left_s < LEAST_PART * timeout_s or not (again := list(attempts.again())):
                break
            for one in again:
                why = plain(one.why)
                self._write(Again(site=one.site, round=number, attempt=one.attempt, why=why))
                log.warning("%s: its release was lost (%s); it is asked anew, attempt %d", one.site, why, one.attempt)
                if self.deployment:
                    self.deployment.presence(one.site, f"its release was lost; it makes it anew ({one.attempt})")
            newest = self._exchange([one.message for one in again], min(timeout_s, left_s))
            replies = replies + newest
        return replies, attempts

    def _instructions(self, strategy: Hospitals, number: int) -> list[Message]:
        fields: dict[str, str | int] = {"study_sha256": self.study.sha256, "round": number}
        asked = content("train", fields, self.model, self.parameters)
        shared, config = arrays_in(asked), asked.config_records[wire.CONFIG]
        return list(strategy.configure_train(number, shared, config, self.grid))

    def _held(self, model: Arrays) -> Arrays:
        """A model as it will be sent: from here on it is not copied."""
        return from_record(to_record(model), self.parameters)

    def _evaluate(self, model: Arrays, roster: Roster) -> Released | None:
        """Ask each hospital once how good the final model is, if the study does; nobody's answer is needed."""
        event = mode_of(self.study).evaluation(self.study)
        if event is None:
            return None
        asked = content("evaluate", {"study_sha256": self.study.sha256}, model, self.parameters)
        messages = [Message(asked, dst_node_id=node, message_type=wire.EVALUATE) for node in roster.asked.values()]
        replies, attempts = self._ask(messages, roster, 0)
        histograms, missing = self._judge(
            replies, roster, lambda reply, site: self._read_histogram(reply, site, event.noise_multiplier)
        )
        sent = {site: len(wire.HISTOGRAM) + histogram.nbytes for site, histogram in histograms.items()}
        self._write(Evaluated(contributed=sent, missing=missing, attempts=dict(attempts.made)))
        return Released(histograms, missing, event.noise_multiplier)

    def _read_histogram(self, reply: Message, site: str, noise_multiplier: float) -> NDArray[np.float32]:
        form = "evaluate reply"
        histogram = read(form, reply.content, arrays_of(form, self.study)).arrays[wire.HISTOGRAM]
        require_plausible(histogram, noise_multiplier, self.study.announced_patients(site))
        return histogram

    def _count(self, result: Conducted, roster: Roster) -> Conducted:
        """The one round of a study that trains nothing: ask each hospital once for its noisy statistics."""
        started, nodes = time.monotonic(), roster.asked
        asked = content("statistics", {"study_sha256": self.study.sha256})
        messages = [Message(asked, dst_node_id=node, message_type=wire.STATISTICS) for node in nodes.values()]
        replies, attempts = self._ask(messages, roster, 1)
        vectors, missing = self._judge(replies, roster, lambda reply, site: read_counts(reply, site, self.study))
        sent = {site: len(wire.COUNTS) + vector.nbytes for site, vector in vectors.items()}
        if self._stopped() and len(sent) < len(nodes):
            self.rounds = self.rounds.abandon("stopped by the consortium before every hospital had answered")
        else:
            self._close(sent, attempts, missing)
        record = RoundRecord(1, sent, missing, time.monotonic() - started, attempts.made)
        self._note_round(record)
        self.observer(record, {})
        result.rounds = self.rounds
        result.records.append(record)
        if self.rounds.outcome == "COMPLETE":
            result.statistics = Counted(vectors, missing)
        self._write(End(outcome=self.rounds.outcome, why=self.rounds.why))
        return result

    def _read_model(self, reply: Message, site: str, plausibility: Plausibility) -> Message:
        """Accept a hospital's model, unless it is further from the shared one than an honest one can be."""
        update = read("train reply", reply.content, self.parameters).arrays
        try:
            plausibility.require(site, update)
        except ImplausibleError as error:
            self.implausible.add(site)
            self._write(Refused(site=site, round=self.rounds.current, code=0, reason=str(error)))
            log.warning("%s: %s", site, error)
            raise
        self.implausible.discard(site)
        return reply

    def _judge(
        self, replies: Sequence[Message], roster: Roster, accept: Callable[[Message, str], Accepted]
    ) -> tuple[dict[str, Accepted], dict[str, str]]:
        """What `accept` makes of each hospital's first reply, and why the others do not count (WireErrors in words)."""
        site_of = {node: site for site, node in roster.asked.items()}
        accepted: dict[str, Accepted] = {}
        missing = {**roster.missing, **dict.fromkeys(roster.asked, LATE)}
        for reply in replies:
            site = site_of.get(reply.metadata.src_node_id)
            if site is None or site in accepted or not (reply.has_error() or reply.has_content()):
                continue  # a stranger, a second answer, or none at all
            if reply.has_error():
                missing[site] = plain(reply.error.reason)
                continue
            try:
                accepted[site] = accept(reply, site)
            except WireError as error:
                missing[site] = str(error)[:200]
                continue
            del missing[site]
        return accepted, self._explained(missing)

    def _explained(self, missing: dict[str, str]) -> dict[str, str]:
        """Say of hospitals that did not reply in time, where it is so, that they are not connected."""
        if self.gathering is None or LATE not in missing.values():
            return missing
        self.gathering.step()
        reasons = {site: self.gathering.absence(site) for site, why in missing.items() if why == LATE}
        return missing | {site: f"{LATE}; {absence}" for site, absence in reasons.items() if absence}

    def _remember(self, strategy: Hospitals, number: int) -> None:
        """Average the last iterates, and keep a checkpoint."""
        if number > self.study.training.rounds - self.study.averaged_rounds:
            zeros = self.checkpoints.zeros if self.checkpoints else np.zeros
            self.sums, self.averaged = aggregate.add(self.sums, self.model, zeros), self.averaged + 1
        if self.checkpoints:
            state = strategy.optimizer_state()
            self.checkpoints.save(Checkpoint(number, self.model, state, self.sums, self.averaged))

    def _restore(self, checkpoint: Checkpoint, strategy: Hospitals) -> None:
        self.model = self._held(checkpoint.model)
        self.sums, self.averaged = dict(checkpoint.average), checkpoint.averaged
        strategy.restore(to_record(self.model), checkpoint.optimizer)
        self.rounds = self.rounds.resume(checkpoint.round)
        self._write(Resumed(after_round=checkpoint.round))

    def _final_model(self) -> Arrays:
        return aggregate.mean_of(self.sums, self.averaged) if self.averaged else self.model

    def _exchange(self, messages: list[Message], timeout_s: float | None = None) -> list[Message]:
        if not messages:
            return []
        timeout_s = self.study.training.round_timeout_s if timeout_s is None else timeout_s
        return list(self.grid.send_and_receive(messages, timeout=timeout_s))

    def _write(self, record: Kind) -> None:
        if self.journal:
            self.journal.write(record)

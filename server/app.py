"""The coordinator's Flower ServerApp: gather the hospitals, conduct the rounds, keep a checkpoint of each.

The study comes in, models go out; what a hospital replies is checked against configs/wire.py before anything uses it.
`conduct` takes any Flower `Grid`, so a simulation and a deployment run these very lines.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from configs import wire
from configs.errors import RunError, WireError
from configs.journal import Journal
from configs.load import SITE_NAME
from configs.schema import Study
from server.checkpoint import Checkpoint, Checkpoints
from server.rounds import Rounds
from server.statistics import Counted, read_counts
from strategies import aggregate
from strategies.arrays import Arrays, from_record, payload_bytes, to_record
from strategies.federated import Federated, strategy_of
from strategies.messages import arrays_in, content, read
from strategies.privacy.plan import evaluation_event
from strategies.tasks.histogram import require_plausible
from strategies.tasks.shapes import arrays_of
from strategies.tasks.tabular import task_of

log = logging.getLogger("archipel.server")
NODE_POLL_S, SLOWEST_POLL_S, LONGEST_REST_S = 0.1, 60.0, 1.0  # a study may wait for its hospitals for weeks
HELLO_TIMEOUT_S = 60.0  # of one proposal between machines; who does not answer is asked again
Observer = Callable[["RoundRecord", Arrays], None]
Accepted = TypeVar("Accepted")


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round: bytes that each hospital sent, and a plain reason for each that did not."""

    round: int
    contributed: Mapping[str, int]
    missing: Mapping[str, str]
    seconds: float


@dataclass(frozen=True)
class Deployment:
    """What only real hospitals need: time to connect and to approve, names of nodes, and a way to stop.

    `site_of` names a node's hospital, `presence` is told what each hospital does, `stopped` is asked between rounds.
    """

    gather_timeout_s: float
    site_of: Callable[[int], str | None]
    presence: Callable[[str, str], None] = lambda site, state: None
    stopped: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Released:
    """What hospitals said of the final model, where the study asks: noisy histograms, and why others sent none."""

    histograms: Mapping[str, NDArray[np.float32]]  # hospital -> (2, bins)
    missing: Mapping[str, str]
    noise_multiplier: float

    def to_dict(self) -> dict[str, object]:
        """Plain values for metrics.json."""
        return {
            "histograms": {site: histogram.tolist() for site, histogram in sorted(self.histograms.items())},
            "missing": dict(self.missing),
            "noise_multiplier": self.noise_multiplier,
        }


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
        task = task_of(study)
        self.parameters = task.parameters
        self.rounds = Rounds(study.training.rounds, study.training.quorum)
        self.model = self._held(initial or task.initial(study.seed))
        self.sums: aggregate.Sums = {}
        self.averaged = 0

    def run(self) -> Conducted:
        restored = self.checkpoints.load() if self.checkpoints else None
        nodes, hello_bytes = self._gather()
        result = Conducted(self.rounds, {}, hello_bytes=hello_bytes)
        if self._stopped() and not restored:
            return self._end(result, "stopped by the consortium before it began")
        if len(nodes) < self.study.training.quorum:
            if self._stopped():
                return self._end(result, "stopped by the consortium before it went on")
            return self._end(
                result,
                f"{len(nodes)} hospitals take part ({', '.join(nodes) or 'none'}), the study asks for "
                f"{self.study.training.quorum}",
            )
        if not self.study.trains:
            return self._count(result, nodes)
        strategy = strategy_of(self.study, nodes, aggregate.site_weights(self.study, list(nodes)))
        if restored:
            self._restore(restored, strategy)
            del restored  # a large model is held once
        while self.rounds.outcome == "RUNNING":
            if self._stopped():
                self.rounds = self.rounds.abandon(f"stopped by the consortium after round {self.rounds.done}")
                break
            result.records.append(self._round(strategy, nodes))
        result.rounds, result.model = self.rounds, self._final_model()
        if self.rounds.outcome == "COMPLETE":
            result.released = self._evaluate(result.model, nodes)
        self._write("end", outcome=self.rounds.outcome, why=self.rounds.why)
        return result

    def _end(self, result: Conducted, why: str) -> Conducted:
        """The end of a run before its first round."""
        result.model, result.rounds = self.model, self.rounds.abandon(why)
        self._write("end", outcome=result.rounds.outcome, why=result.rounds.why)
        return result

    def _gather(self) -> tuple[dict[str, int], dict[str, int]]:
        """Propose the study to every node that connects; those that take part, by name.

        Ends when every hospital of the study has answered for good, when the time is over, or when it is stopped. A
        hospital that has not approved the study yet is asked again.
        """
        fields: dict[str, str | int] = {"protocol": wire.PROTOCOL, "study": self.study.canonical}
        proposal = content("hello", fields)
        expected = len(self.study.sites) or self.study.training.quorum
        deadline = time.monotonic() + self._gather_timeout_s
        nodes: dict[str, int] = {}
        sent: dict[str, int] = {}
        answered: set[int] = set()
        pause = NODE_POLL_S
        while True:
            asked = sorted(set(self.grid.get_node_ids()) - answered)
            late = time.monotonic() >= deadline or self._stopped()
            if len(asked) + len(answered) >= expected or late or (asked and self.deployment):
                self._propose(proposal, asked, nodes, sent, answered)
            if len(answered) >= expected or late:
                break
            self._rest(pause)
            pause = min(pause * 1.5, SLOWEST_POLL_S)
        self._write("gathered", study_sha256=self.study.sha256, sites=sorted(nodes), bytes=sent)
        return dict(sorted(nodes.items())), sent

    def _propose(
        self, proposal: RecordDict, asked: list[int], nodes: dict[str, int], sent: dict[str, int], answered: set[int]
    ) -> None:
        """Ask some nodes once; `answered` grows by those that need not be asked again."""
        messages = [Message(proposal, dst_node_id=node, message_type=wire.HELLO) for node in asked]
        if not self.deployment:
            answered.update(asked)  # in one machine who does not answer at once never will
        for reply in self._exchange(messages, HELLO_TIMEOUT_S if self.deployment else None):
            node = reply.metadata.src_node_id
            if reply.has_error():
                reason = _plain(reply.error.reason)
                self._presence(node, reason)
                if reply.error.code not in wire.WAITING or not self.deployment:
                    self._write("refused", code=reply.error.code, reason=reason)
                    answered.add(node)
                continue
            answered.add(node)
            try:
                site = self._read_hello(reply, nodes)
            except WireError as error:
                self._write("refused", code=0, reason=str(error)[:200])
                continue
            nodes[site], sent[site] = node, len(site) + 64
            self._presence(node, "takes part")

    @property
    def _gather_timeout_s(self) -> float:
        return self.deployment.gather_timeout_s if self.deployment else self.study.training.round_timeout_s

    def _stopped(self) -> bool:
        return self.deployment is not None and self.deployment.stopped()

    def _rest(self, seconds: float) -> None:
        """Wait, but not longer than a second once the consortium asked to stop."""
        over = time.monotonic() + seconds
        while (left := over - time.monotonic()) > 0 and not self._stopped():
            time.sleep(min(left, LONGEST_REST_S))

    def _presence(self, node: int, state: str) -> None:
        if self.deployment and (site := self.deployment.site_of(node)):
            self.deployment.presence(site, state)

    def _read_hello(self, reply: Message, nodes: Mapping[str, int]) -> str:
        fields = read("hello reply", reply.content).fields
        site = str(fields["site"])
        if fields["protocol"] != wire.PROTOCOL or not SITE_NAME.fullmatch(site):
            raise WireError("hello reply: expected this protocol and a hospital's name, found another or none")
        if fields["study_sha256"] != self.study.sha256:
            raise WireError("hello reply: expected the proposed study's digest, found another")
        if site in nodes or (self.study.sites and site not in self.study.sites):
            raise WireError("hello reply: expected a hospital of the cohort, once; found another or a second one")
        return site

    def _round(self, strategy: Federated, nodes: Mapping[str, int]) -> RoundRecord:
        started = time.monotonic()
        number = self.rounds.current
        replies = self._exchange(self._instructions(strategy, number))
        valid, missing = self._judge(replies, nodes, self._read_model)
        sent = {site: payload_bytes(arrays_in(reply.content)) for site, reply in valid.items()}
        if self._stopped() and len(sent) < len(nodes):
            self.rounds = self.rounds.abandon(f"stopped by the consortium in round {number}")
            return RoundRecord(number, sent, missing, time.monotonic() - started)
        self.rounds = self.rounds.close(set(sent))
        record = RoundRecord(number, sent, missing, time.monotonic() - started)
        if self.rounds.outcome != "INCOMPLETE":
            aggregated, _ = strategy.aggregate_train(number, list(valid.values()))
            if aggregated is None:
                raise RunError(f"round {number}: the strategy made no model of {len(valid)} replies; this is a bug")
            try:
                self.model = from_record(aggregated, self.parameters)
            except WireError:
                self.rounds = self.rounds.abandon(f"round {number}: the hospitals' models add up to no finite model")
        # The journal first: what was received is on record even if the checkpoint never comes to be.
        self._write(
            "round", round=number, contributed=dict(sent), missing=dict(missing), seconds=round(record.seconds, 4)
        )
        if self.rounds.outcome != "INCOMPLETE":
            self._remember(strategy, number)
        self.observer(record, self.model)
        return record

    def _instructions(self, strategy: Federated, number: int) -> list[Message]:
        fields: dict[str, str | int] = {"study_sha256": self.study.sha256, "round": number}
        asked = content("train", fields, self.model, self.parameters)
        shared, config = arrays_in(asked), asked.config_records[wire.CONFIG]
        return list(strategy.configure_train(number, shared, config, self.grid))

    def _held(self, model: Arrays) -> Arrays:
        """A model as it will be sent: from here on it is not copied."""
        return from_record(to_record(model), self.parameters)

    def _evaluate(self, model: Arrays, nodes: Mapping[str, int]) -> Released | None:
        """Ask each hospital once how good the final model is, if the study does; nobody's answer is needed."""
        event = evaluation_event(self.study)
        if event is None:
            return None
        asked = content("evaluate", {"study_sha256": self.study.sha256}, model, self.parameters)
        replies = self._exchange(
            [Message(asked, dst_node_id=node, message_type=wire.EVALUATE) for node in nodes.values()]
        )
        histograms, missing = self._judge(
            replies, nodes, lambda reply, site: self._read_histogram(reply, site, event.noise_multiplier)
        )
        sent = {site: len(wire.HISTOGRAM) + histogram.nbytes for site, histogram in histograms.items()}
        self._write("evaluated", contributed=sent, missing=missing)
        return Released(histograms, missing, event.noise_multiplier)

    def _read_histogram(self, reply: Message, site: str, noise_multiplier: float) -> NDArray[np.float32]:
        form = "evaluate reply"
        histogram = read(form, reply.content, arrays_of(form, self.study)).arrays[wire.HISTOGRAM]
        require_plausible(histogram, noise_multiplier, self.study.announced_patients(site))
        return histogram

    def _count(self, result: Conducted, nodes: Mapping[str, int]) -> Conducted:
        """The one round of a study that trains nothing: ask each hospital once for its noisy statistics."""
        started = time.monotonic()
        asked = content("statistics", {"study_sha256": self.study.sha256})
        replies = self._exchange(
            [Message(asked, dst_node_id=node, message_type=wire.STATISTICS) for node in nodes.values()]
        )
        vectors, missing = self._judge(replies, nodes, lambda reply, site: read_counts(reply, site, self.study))
        sent = {site: len(wire.COUNTS) + vector.nbytes for site, vector in vectors.items()}
        if self._stopped() and len(sent) < len(nodes):
            self.rounds = self.rounds.abandon("stopped by the consortium before every hospital had answered")
        else:
            self.rounds = self.rounds.close(set(sent))
        record = RoundRecord(1, sent, missing, time.monotonic() - started)
        self._write("round", round=1, contributed=sent, missing=missing, seconds=round(record.seconds, 4))
        self.observer(record, {})
        result.rounds = self.rounds
        result.records.append(record)
        if self.rounds.outcome == "COMPLETE":
            result.statistics = Counted(vectors, missing)
        self._write("end", outcome=self.rounds.outcome, why=self.rounds.why)
        return result

    def _read_model(self, reply: Message, site: str) -> Message:
        read("train reply", reply.content, self.parameters)
        return reply

    def _judge(
        self, replies: Sequence[Message], nodes: Mapping[str, int], accept: Callable[[Message, str], Accepted]
    ) -> tuple[dict[str, Accepted], dict[str, str]]:
        """What `accept` makes of each hospital's first reply, and why the others do not count (WireErrors in words)."""
        site_of = {node: site for site, node in nodes.items()}
        accepted: dict[str, Accepted] = {}
        missing = dict.fromkeys(nodes, "no reply in time")
        for reply in replies:
            site = site_of.get(reply.metadata.src_node_id)
            if site is None or site in accepted or not (reply.has_error() or reply.has_content()):
                continue  # a stranger, a second answer, or none at all
            if reply.has_error():
                missing[site] = _plain(reply.error.reason)
                continue
            try:
                accepted[site] = accept(reply, site)
            except WireError as error:
                missing[site] = str(error)[:200]
                continue
            del missing[site]
        return accepted, missing

    def _remember(self, strategy: Federated, number: int) -> None:
        """Average the last iterates, and keep a checkpoint."""
        if number > self.study.training.rounds - self.study.averaged_rounds:
            zeros = self.checkpoints.zeros if self.checkpoints else np.zeros
            self.sums, self.averaged = aggregate.add(self.sums, self.model, zeros), self.averaged + 1
        if self.checkpoints:
            state = strategy.optimizer_state()
            self.checkpoints.save(Checkpoint(number, self.model, state, self.sums, self.averaged))

    def _restore(self, checkpoint: Checkpoint, strategy: Federated) -> None:
        self.model = self._held(checkpoint.model)
        self.sums, self.averaged = dict(checkpoint.average), checkpoint.averaged
        strategy.restore(to_record(self.model), checkpoint.optimizer)
        self.rounds = self.rounds.resume(checkpoint.round)
        self._write("resumed", after_round=checkpoint.round)

    def _final_model(self) -> Arrays:
        return aggregate.mean_of(self.sums, self.averaged) if self.averaged else self.model

    def _exchange(self, messages: list[Message], timeout_s: float | None = None) -> list[Message]:
        if not messages:
            return []
        timeout_s = self.study.training.round_timeout_s if timeout_s is None else timeout_s
        return list(self.grid.send_and_receive(messages, timeout=timeout_s))

    def _write(self, kind: str, **facts: object) -> None:
        if self.journal:
            self.journal.append(kind, **facts)


def _plain(reason: str | None) -> str:
    """A hospital's sentence, as printable text of bounded length: it goes to journals and screens."""
    return "".join(c for c in reason or "" if c.isprintable())[:200] or "no reason given"

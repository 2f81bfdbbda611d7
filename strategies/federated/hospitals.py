"""Flower's strategies, adapted to hospitals in a fixed order.

`Hospitals` is put in front of each of Flower's classes: one message a hospital in the order of their names, replies
aggregated in that order (sums of floats depend on it), weights from the study, results as float32, and an optimizer
state that a checkpoint can carry. The arithmetic is Flower's.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from configs import wire
from configs.schema import Study
from strategies.exchange.arrays import Arrays, to_record
from strategies.exchange.flower import record_of
from strategies.exchange.messages import arrays_in
from strategies.federated.mean import weighted_mean

WEIGHT = "weight"
_FLOWER_NAMES = {"server_learning_rate": "eta", "trim_fraction": "beta", "malicious_sites": "num_malicious_nodes"}
_STATE = ("m_t", "v_t")  # Flower's names for the adaptive strategies' moments


class Hospitals:
    """Put in front of one of Flower's strategies. `nodes` maps each hospital to its node; `weights` to its weight."""

    def __init__(self, study: Study, nodes: Mapping[str, int], weights: Mapping[str, float]) -> None:
        options = self.flower_options(dict(study.training.strategy.options))
        super().__init__(weighted_by_key=WEIGHT, min_train_nodes=1, min_available_nodes=1, **options)  # type: ignore[call-arg]
        self.study = study
        self.address(nodes, weights)

    def flower_options(self, options: Mapping[str, float]) -> dict[str, float]:
        """Return the study's options under the names of Flower's constructor."""
        return {_FLOWER_NAMES.get(option, option): value for option, value in options.items()}

    def address(self, nodes: Mapping[str, int], weights: Mapping[str, float]) -> None:
        """Set the hospitals that are asked from now on, their nodes and their weights."""
        self._nodes = dict(sorted(nodes.items()))
        self._site_of = {node: site for site, node in self._nodes.items()}
        self._weights = dict(weights)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message for each hospital: the shared model, the arrays beside it, and `config` unchanged."""
        del grid  # Flower asks it for the participants
        self._names = list(arrays)
        # Flower's class keeps what it needs of the arrays; its own messages (with fields of its own) are not sent.
        super().configure_train(server_round, arrays, ConfigRecord(), _Nodes(self._nodes.values()))  # type: ignore[misc]
        return self._messages(server_round, arrays, config)

    def sent(self, site: str) -> Arrays:
        """Return what this hospital receives beside the model, as the strategy's keys declare it."""
        del site
        return {}

    def _messages(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        shared = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: config})

        def content(sent: Arrays) -> RecordDict:
            if not sent:
                return shared
            both = {**dict(arrays.items()), **dict(to_record(sent).items())}
            return RecordDict({wire.ARRAYS: record_of(both), wire.CONFIG: config})

        return [
            Message(content(self.sent(site)), dst_node_id=node, message_type=wire.TRAIN, group_id=str(server_round))
            for site, node in self._nodes.items()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the new shared model of checked replies; each gets its hospital's public weight."""
        ordered = sorted(replies, key=lambda reply: self._site_of[reply.metadata.src_node_id])
        for reply in ordered:
            site, record = self._site_of[reply.metadata.src_node_id], arrays_in(reply.content)
            if list(record) != self._names:  # in the model's order: some of Flower's classes go by position
                reply.content[wire.ARRAYS] = record_of({name: record[name] for name in self._names})
            reply.content["metrics"] = MetricRecord({WEIGHT: self._weights[site]})
        arrays, metrics = super().aggregate_train(server_round, ordered)  # type: ignore[misc]
        if arrays is None:
            return None, metrics
        return to_record({name: np.asarray(a.numpy(), np.float32) for name, a in arrays.items()}), metrics

    def optimizer_state(self) -> Arrays:
        """Return what the next round depends on beside the model: `moment/parameter` -> array."""
        state = {}
        for moment in _STATE:
            for name, array in (getattr(self, moment, None) or {}).items():
                state[f"{moment}/{name}"] = np.asarray(array)
        return state

    def restore(self, arrays: ArrayRecord, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a checkpoint's model and optimizer state."""
        del arrays
        for moment in _STATE:
            if moments := {key.partition("/")[2]: a for key, a in state.items() if key.startswith(f"{moment}/")}:
                setattr(self, moment, moments)


class _Nodes:
    """The one thing that Flower's sampling asks of a grid."""

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids = list(ids)

    def get_node_ids(self) -> list[int]:
        return self._ids


class Mean(Hospitals):
    """Put in front of strategies that are a weighted mean and nothing else: the same bits, without copies."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message for each hospital; keep no array."""
        del grid
        return self._messages(server_round, arrays, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the weighted mean, in the order of the hospitals' names."""
        del server_round
        records = {self._site_of[r.metadata.src_node_id]: arrays_in(r.content) for r in replies}
        sites = sorted(records)
        weights = [self._weights[site] for site in sites]
        return (weighted_mean([records[site] for site in sites], weights) if sites else None), None

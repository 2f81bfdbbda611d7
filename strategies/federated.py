"""The nine strategies: Flower's own, made to speak of hospitals.

`Hospitals` is all that is added, in front of each of Flower's classes: one message a hospital in the order of their
names, replies aggregated in that order (sums of floats depend on it), weights from the study, results as float32, and
an optimizer state that a checkpoint can carry. The arithmetic is Flower's.

- fedavg: McMahan et al. 2017 (arXiv 1602.05629); fedprox: Li et al. 2020 (1812.06127), whose pull is applied by the
  hospital from the study; fedavgm: Hsu et al. 2019 (1909.06335)
- fedadam, fedyogi, fedadagrad: Reddi et al. 2021 (2003.00295)
- median, trimmed_mean: Yin et al. 2018 (1803.01498); krum: Blanchard et al. 2017 (1703.02757)
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray

from configs import wire
from configs.schema import Study
from strategies.aggregate import weighted_mean
from strategies.exchange.arrays import Arrays, record_of, to_record
from strategies.exchange.messages import arrays_in

WEIGHT = "weight"
_STATE = ("m_t", "v_t")  # Flower's names for the adaptive strategies' moments


class Hospitals:
    """Put in front of one of Flower's strategies. `nodes` maps each hospital to its node; `weights` to its weight."""

    def __init__(self, nodes: Mapping[str, int], weights: Mapping[str, float], **options: float) -> None:
        super().__init__(weighted_by_key=WEIGHT, min_train_nodes=1, min_available_nodes=1, **options)  # type: ignore[call-arg]
        self.address(nodes, weights)

    def address(self, nodes: Mapping[str, int], weights: Mapping[str, float]) -> None:
        """Set the hospitals that are asked from now on, their nodes and their weights."""
        self._nodes = dict(sorted(nodes.items()))
        self._site_of = {node: site for site, node in self._nodes.items()}
        self._weights = dict(weights)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a hospital, holding the shared model and `config` as it is."""
        self._names = list(arrays)
        # Flower's class keeps what it needs of the arrays; its own messages (with fields of its own) are not sent.
        super().configure_train(server_round, arrays, ConfigRecord(), _Nodes(self._nodes.values()))  # type: ignore[misc]
        return self._messages(server_round, arrays, config)

    def _messages(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord) -> list[Message]:
        content = RecordDict({wire.ARRAYS: arrays, wire.CONFIG: config})
        return [
            Message(content, dst_node_id=node, message_type=wire.TRAIN, group_id=str(server_round))
            for node in self._nodes.values()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The new shared model from replies that have been checked; each gets its hospital's public weight."""
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
        """What the next round depends on beside the model: `moment/parameter` -> array."""
        state = {}
        for moment in _STATE:
            for name, array in (getattr(self, moment, None) or {}).items():
                state[f"{moment}/{name}"] = np.asarray(array)
        return state

    def restore(self, arrays: ArrayRecord, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a checkpoint's model and optimizer state."""
        for moment in _STATE:
            if held := {key.partition("/")[2]: a for key, a in state.items() if key.startswith(f"{moment}/")}:
                setattr(self, moment, held)


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
        """One message a hospital; nothing of the arrays is kept."""
        return self._messages(server_round, arrays, config)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weighted mean, in the order of the hospitals' names."""
        records = {self._site_of[r.metadata.src_node_id]: arrays_in(r.content) for r in replies}
        sites = sorted(records)
        weights = [self._weights[site] for site in sites]
        return (weighted_mean([records[site] for site in sites], weights) if sites else None), None


class FedAvg(Mean, flower.FedAvg):
    """Weighted mean of the hospitals' models."""


class FedProx(Mean, flower.FedProx):
    """FedAvg with a pull towards the shared model during local training."""


class FedAvgM(Hospitals, flower.FedAvgM):
    """FedAvg with momentum at the coordinator."""

    def optimizer_state(self) -> Arrays:
        """The momentum vector; Flower keeps it as a list without names."""
        return {f"momentum/{i:04d}": np.asarray(array) for i, array in enumerate(self.momentum_vector or [])}

    def restore(self, arrays: ArrayRecord, state: Mapping[str, NDArray[Any]]) -> None:
        """Also the arrays, which Flower's class takes from the first round only."""
        self.current_arrays = arrays
        self.momentum_vector = [state[key] for key in sorted(state)] or None


class _PublishedAdam(flower.FedAdam):
    """Adam at the coordinator, as published: Reddi et al.'s algorithm 2 has no bias correction.

    Flower has Kingma and Ba's, by powers whose last bits are the C library's.
    """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """One step along the weighted mean, of operations with the same bits on every processor."""
        mean, metrics = super(flower.FedAdam, self).aggregate_train(server_round, replies)
        if mean is None or self.current_arrays is None:
            return mean, metrics
        moved, first, arrays = self._compute_deltat_and_mt(mean)
        second = self.v_t or {name: np.zeros_like(array) for name, array in arrays.items()}
        self.v_t = {
            name: self.beta_2 * moment + (1 - self.beta_2) * (moved[name] * moved[name])
            for name, moment in second.items()
        }
        rate = np.float64(self.eta)
        return to_record(
            {
                name: np.asarray(x + rate * first[name] / (np.sqrt(self.v_t[name]) + self.tau), np.float32)
                for name, x in self.current_arrays.items()
            }
        ), metrics


class FedAdam(Hospitals, _PublishedAdam):
    """Adam at the coordinator."""


class FedYogi(Hospitals, flower.FedYogi):
    """Yogi at the coordinator."""


class FedAdagrad(Hospitals, flower.FedAdagrad):
    """Adagrad at the coordinator; `beta_1` is its momentum, which Flower's constructor leaves out."""

    def __init__(self, nodes: Mapping[str, int], weights: Mapping[str, float], beta_1: float, **options: float) -> None:
        super().__init__(nodes, weights, **options)
        self.beta_1 = beta_1


class Median(Hospitals, flower.FedMedian):
    """Coordinate-wise median; weights play no part."""


class TrimmedMean(Hospitals, flower.FedTrimmedAvg):
    """Coordinate-wise mean without the extremes; weights play no part.

    Values are added up by size: Flower's stand as a partition leaves them, which is another on each processor.
    """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of what is left after as many of the least and of the largest are cut as the study says."""
        records = [arrays_in(reply.content) for reply in replies]
        if not records:
            return None, None
        cut = int(self.beta * len(records))
        kept = slice(cut, len(records) - cut)
        return to_record(
            {
                name: np.sort(np.stack([record[name].numpy() for record in records]), axis=0)[kept].mean(axis=0)
                for name in self._names
            }
        ), None


class _ExactKrum(flower.Krum):
    """Krum by distances in double precision: of near models Flower's |a|^2 + |b|^2 - 2ab in single keeps no digit."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand on the one reply with the least sum of squared distances to its n - f - 2 nearest."""
        candidates = list(replies)
        if candidates:
            models = np.stack([_flat(reply) for reply in candidates])  # (hospitals, parameters)
            distances = np.sort([((models - own) ** 2).sum(axis=1) for own in models], axis=1)
            neighbours = max(1, len(candidates) - self.num_malicious_nodes - 2)
            candidates = [candidates[distances[:, 1 : 1 + neighbours].sum(axis=1).argmin()]]
        return super().aggregate_train(server_round, candidates)


def _flat(reply: Message) -> NDArray[np.float64]:
    arrays = arrays_in(reply.content).values()
    return np.concatenate([array.numpy().ravel() for array in arrays], dtype=np.float64)


class Krum(Hospitals, _ExactKrum):
    """The one model that is nearest to its neighbours."""


Federated = FedAvg | FedProx | FedAvgM | FedAdam | FedYogi | FedAdagrad | Median | TrimmedMean | Krum

REGISTRY: Mapping[str, type[Federated]] = {
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedadagrad": FedAdagrad,
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "krum": Krum,
}
_FLOWER_NAMES = {"server_learning_rate": "eta", "trim_fraction": "beta", "malicious_sites": "num_malicious_nodes"}


def strategy_of(study: Study, nodes: Mapping[str, int], weights: Mapping[str, float]) -> Federated:
    """The study's strategy for these hospitals."""
    name = study.training.strategy.name
    options: dict[str, Any] = dict(study.training.strategy.options)
    if name == "krum":
        options["malicious_sites"] = int(options["malicious_sites"])
    if name != "fedavgm":
        options = {_FLOWER_NAMES.get(option, option): value for option, value in options.items()}
    return REGISTRY[name](nodes, weights, **options)

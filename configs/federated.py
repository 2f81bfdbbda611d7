"""The strategies that a study may name: their options with bounds, and the arrays that they send beside the model.

What a strategy does stands in strategies/federated, one file each; a declaration of its own is registered from there.

>>> [option.name for option in FEDERATED["fedavgm"].options]
['server_learning_rate', 'server_momentum']
>>> sent_arrays(Strategy("fedavg"), {"bias": ((1,), "float32")})
{}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from configs.kinds import Registry
from configs.schema import Strategy
from configs.wire import ArraySpec

Specs = Mapping[str, ArraySpec]


@dataclass(frozen=True, slots=True)
class Option:
    """A number that a study may give a strategy, from `low` (or `above` it) to `high`; `expected` says so in words."""

    name: str
    default: float
    low: float
    high: float
    expected: str
    above: bool = False


def no_arrays(parameters: Specs) -> Specs:
    """Declare no array beside the model's own."""
    del parameters
    return {}


@dataclass(frozen=True, slots=True)
class FederatedKeys:
    """What a study's `training.strategy` may hold under this name.

    `sent` declares the arrays that a hospital receives beside the model, by name and shape, given the model's
    parameters. Their names must differ from the parameters'. None ever leaves a hospital beside the model: what a
    strategy would have it compute from released models, the coordinator computes itself.
    """

    name: str
    options: tuple[Option, ...] = ()
    sent: Callable[[Specs], Specs] = no_arrays


def _rate(default: float) -> Option:
    return Option("server_learning_rate", default, 0.0, 1e3, "a number above 0, at most 1000", above=True)


def _beta(number: int, default: float) -> Option:
    return Option(f"beta_{number}", default, 0.0, 0.9999, "a number from 0 to 0.9999")


_TAU = Option("tau", 0.001, 0.0, 1.0, "a number above 0, at most 1", above=True)

FEDERATED: Registry[FederatedKeys] = Registry(
    "strategy",
    ("options", "sent"),
    (
        FederatedKeys("fedavg"),
        FederatedKeys("fedprox", (Option("proximal_mu", 0.1, 0.0, 1e3, "a number from 0 to 1000"),)),
        FederatedKeys("fedavgm", (_rate(1.0), Option("server_momentum", 0.9, 0.0, 0.999, "a number from 0 to 0.999"))),
        FederatedKeys("fedadam", (_rate(0.1), _beta(1, 0.9), _beta(2, 0.99), _TAU)),
        FederatedKeys("fedyogi", (_rate(0.01), _beta(1, 0.9), _beta(2, 0.99), _TAU)),
        FederatedKeys("fedadagrad", (_rate(0.1), _beta(1, 0.0), _TAU)),
        FederatedKeys("median"),
        FederatedKeys("trimmed_mean", (Option("trim_fraction", 0.25, 0.0, 0.4999, "a share from 0 to 0.4999"),)),
        FederatedKeys("krum", (Option("malicious_sites", 0, 0, 10_000, "a number of hospitals from 0"),)),
    ),
)


def sent_arrays(strategy: Strategy, parameters: Specs) -> Specs:
    """Return the arrays that the coordinator sends each hospital beside the model; of no model there are none."""
    return FEDERATED[strategy.name].sent(parameters) if parameters else {}

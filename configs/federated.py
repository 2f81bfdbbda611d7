"""The strategies that a study may name: their options with bounds, and the arrays that they send beside the model.

What a strategy does stands in strategies/federated, one file each; a declaration of its own is registered from there.

>>> [option.name for option in FEDERATED["fedavgm"].options]
['server_learning_rate', 'server_momentum']
>>> sent_arrays(Strategy("fedavg"), {"bias": ((1,), "float32")})
{}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from configs.keys.declare import Declaration, Key
from configs.keys.one_of import OneOf
from configs.keys.values import Number
from configs.kinds import Registry
from configs.wire import ArraySpec

Specs = Mapping[str, ArraySpec]


@dataclass(frozen=True, slots=True)
class Strategy:
    """How the coordinator combines models: a name of FEDERATED and that strategy's options."""

    name: str
    options: tuple[tuple[str, float], ...] = ()

    def option(self, name: str) -> float:
        """Return the option's value; KeyError where the strategy has none of that name."""
        return dict(self.options)[name]


@dataclass(frozen=True, slots=True)
class Option:
    """A number that a study may give a strategy, from `low` (or `above` it) to `high`; `expected` says so in words."""

    name: str
    default: float
    low: float
    high: float
    expected: str
    above: bool = False
    about: str = ""

    @property
    def key(self) -> Key:
        """Return the option as a key of the section `training.strategy`."""
        value = Number(self.expected, self.low, self.high, self.above)
        return Key(self.name, value, (self.name,), self.default, about=self.about)


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

    @property
    def section(self) -> Declaration:
        """Return the declaration of the section `training.strategy`."""
        return Declaration(self._chosen, tuple(option.key for option in self.options), get=Strategy.option)

    def _chosen(self, **options: float) -> Strategy:
        return Strategy(self.name, tuple(options.items()))


def _rate(default: float) -> Option:
    expected, about = "a number above 0, at most 1000", "the coordinator's step size"
    return Option("server_learning_rate", default, 0.0, 1e3, expected, above=True, about=about)


def _beta(number: int, default: float) -> Option:
    about = f"decay of the coordinator's {('first', 'second')[number - 1]} moment"
    return Option(f"beta_{number}", default, 0.0, 0.9999, "a number from 0 to 0.9999", about=about)


_PULL = Option("proximal_mu", 0.1, 0.0, 1e3, "a number from 0 to 1000", about="the pull to the round's start")
_MOMENTUM = Option("server_momentum", 0.9, 0.0, 0.999, "a number from 0 to 0.999", about="the coordinator's momentum")
_TAU = Option("tau", 0.001, 0.0, 1.0, "a number above 0, at most 1", above=True, about="floor of the adaptive step")
_TRIM = Option("trim_fraction", 0.25, 0.0, 0.4999, "a share from 0 to 0.4999", about="the share cut off at each end")
_MALICIOUS = Option(
    "malicious_sites", 0.0, 0.0, 10_000, "a number of hospitals from 0", about="how many may send anything"
)

FEDERATED: Registry[FederatedKeys] = Registry(
    "strategy",
    ("options", "sent"),
    (
        FederatedKeys("fedavg"),
        FederatedKeys("fedprox", (_PULL,)),
        FederatedKeys("fedavgm", (_rate(1.0), _MOMENTUM)),
        FederatedKeys("fedadam", (_rate(0.1), _beta(1, 0.9), _beta(2, 0.99), _TAU)),
        FederatedKeys("fedyogi", (_rate(0.01), _beta(1, 0.9), _beta(2, 0.99), _TAU)),
        FederatedKeys("fedadagrad", (_rate(0.1), _beta(1, 0.0), _TAU)),
        FederatedKeys("median"),
        FederatedKeys("trimmed_mean", (_TRIM,)),
        FederatedKeys("krum", (_MALICIOUS,)),
    ),
)
STRATEGY = OneOf(FEDERATED, "name", "a mapping with a name")


def sent_arrays(strategy: Strategy, parameters: Specs) -> Specs:
    """Return the arrays that the coordinator sends each hospital beside the model; of no model there are none."""
    return FEDERATED[strategy.name].sent(parameters) if parameters else {}

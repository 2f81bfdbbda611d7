"""The strategies' keys with their bounds, and the arrays sent beside the model.

What a strategy does stands in strategies/federated, one file each; a declaration of its own is registered from there.

>>> [option.name for option in FEDERATED["fedavgm"].options]
['server_learning_rate', 'server_momentum']
>>> sent_arrays(Strategy("fedavg"), {"bias": ((1,), "float32")})
{}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from configs.keys.declare import Declaration, Key
from configs.keys.one_of import OneOf
from configs.keys.values import Around, Number
from configs.kinds import Registry
from configs.sections import Section
from configs.wire import ArraySpec

Specs = Mapping[str, ArraySpec]


@dataclass(frozen=True, slots=True)
class Strategy:
    """The coordinator's strategy: a name of FEDERATED and that strategy's options."""

    name: str
    options: tuple[tuple[str, float], ...] = ()

    def option(self, name: str) -> float:
        """Return the option's value; KeyError where the strategy has none of that name."""
        return dict(self.options)[name]


def no_arrays(parameters: Specs) -> Specs:
    """Declare no array beside the model's own."""
    del parameters
    return {}


def fits_any(training: Any, section: Section, around: Around) -> None:
    """Note nothing: the strategy goes with every local step."""
    del training, section, around


@dataclass(frozen=True, slots=True)
class FederatedKeys:
    """The keys that a study's `training.strategy` may hold under this name.

    `sent` declares the arrays that a hospital receives beside the model, by name and shape, given the model's
    parameters. Their names must differ from the parameters'. None ever leaves a hospital beside the model: what a
    strategy would have it compute from released models, the coordinator computes itself. `check` notes what of the
    section `training` does not go with the strategy.
    """

    name: str
    options: tuple[Key, ...] = ()
    sent: Callable[[Specs], Specs] = no_arrays
    check: Callable[[Any, Section, Around], None] = fits_any

    @property
    def section(self) -> Declaration:
        """Return the declaration of the section `training.strategy`."""
        return Declaration(self._chosen, self.options, get=Strategy.option)

    def _chosen(self, **options: float) -> Strategy:
        return Strategy(self.name, tuple(options.items()))


CORRECTION = "correction/"  # before the name of each parameter


def _corrections(parameters: Specs) -> Specs:
    return {CORRECTION + name: spec for name, spec in parameters.items()}


def _check_drifts(training: Any, section: Section, around: Around) -> None:
    """Note what leaves nothing to correct, and local steps whose sum is not the model's move."""
    local, sizes = training.local, [member.patients for member in around["cohort"]]
    most = max(map(local.steps_per_round, sizes or [1]))
    if (sizes or local.batch_size is None or local.steps) and most < 2:
        section.problem(
            "local",
            "two local steps or more with scaffold, which corrects the later ones",
            f"{most} step",
            "raise local.steps, or use fedavg, which is the same with one step",
        )
    if local.optimizer != "sgd" or local.momentum:
        section.problem("local", "sgd without momentum with scaffold", "another", "change it, or use fedavg")


def _rate(default: float) -> Key:
    return Key("server_learning_rate", _RATE, default=default, about="the coordinator's step size")


def _beta(number: int, default: float) -> Key:
    about = f"decay of the coordinator's {('first', 'second')[number - 1]} moment"
    return Key(f"beta_{number}", Number("a number from 0 to 0.9999", 0.0, 0.9999), default=default, about=about)


_RATE, _SMALL = (
    Number("a number above 0, at most 1000", 0.0, 1e3, above=True),
    Number("a number from 0 to 0.999", 0.0, 0.999),
)
_PULL = Key(
    "proximal_mu", Number("a number from 0 to 1000", 0.0, 1e3), default=0.1, about="the pull to the round's start"
)
_MOMENTUM = Key("server_momentum", _SMALL, default=0.9, about="the coordinator's momentum")
_FLOOR = Number("a number above 0, at most 1", 0.0, 1.0, above=True)
_TAU = Key("tau", _FLOOR, default=0.001, about="floor of the adaptive step")
_SHARE = Number("a share from 0 to 0.4999", 0.0, 0.4999)
_TRIM = Key("trim_fraction", _SHARE, default=0.25, about="the share cut off at each end")
_SITES = Number("a number of hospitals from 0", 0.0, 10_000)
_MALICIOUS = Key("malicious_sites", _SITES, default=0.0, about="how many may send anything")

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
        FederatedKeys("scaffold", sent=_corrections, check=_check_drifts),
    ),
)
STRATEGY = OneOf(FEDERATED, "name", "a mapping with a name")


def sent_arrays(strategy: Strategy, parameters: Specs) -> Specs:
    """Return the arrays that the coordinator sends each hospital beside the model; of no model there are none."""
    return FEDERATED[strategy.name].sent(parameters) if parameters else {}

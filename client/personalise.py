"""A model of each hospital's own, made of the last shared one: Ditto (Li et al. 2021, arXiv 2012.04221, algorithm 1).

After the last round the hospital goes on from the shared model on its own training patients, pulled to where it began:
the gradient of loss + pull / 2 * |model - shared|^2. The personal model reads the shared one and never feeds back, and
nothing of it leaves, so it takes no noise and costs no epsilon. Steps are Adam's, with every patient in each: the rate
of the study's rounds is for clipped and noised sums.

>>> Ditto().name, RATE
('personalise', 0.1)
"""

from typing import TYPE_CHECKING

from configs.errors import RunError
from configs.schema import Local, Study

if TYPE_CHECKING:  # PyTorch, which the node does not need
    from client.site import Site
    from strategies.exchange.arrays import Arrays

RATE = 0.1  # of Adam: the most that a step moves a number of the model by, about


class Ditto:
    """The step after the end of a study with `training.personalise`."""

    name = "personalise"

    def is_asked(self, study: Study) -> bool:
        """Return whether a study asks for it."""
        return study.training.personalise is not None

    def make(self, site: "Site", model: "Arrays") -> "Arrays":
        """Return the hospital's own model."""
        return personalised(site, model)


def personalised(site: "Site", model: "Arrays") -> "Arrays":
    """Return a hospital's own model: the last one, trained further here where the study asks for it.

    Args:
        model: the study's last model; arrays that the hospital keeps to itself take its own values.

    Raises:
        RunError: training diverged.
    """
    from strategies.exchange.arrays import all_finite
    from strategies.federated.local_rule import LocalRule
    from strategies.privacy.randomness import Randomness
    from strategies.releases.base import Fit, at_home

    start, asked, people = at_home(site, model), site.study.training.personalise, site.train
    if asked is None or not people.count:
        return start
    local = Local(None, RATE, epochs=None, steps=asked.steps, optimizer="adam")
    order = Randomness.ordering(site.study.seed, f"{site.name}/personalise", 0)
    own = site.work(Fit(start, people, local, asked.steps, order, rule=LocalRule(pull=asked.pull)))
    if not all_finite(own.values()):
        raise RunError(f"{site.name}: the hospital's own model diverged; raise training.personalise.pull")
    return own

"""A study's kit in a process that a person started: a rehearsal, a look at data, the use of a final model.

The kit runs as in the worker, by site.yaml's `kit_run`. Children come without slots: nothing leaves such a process, so
no time has to be the same for all.
"""

from dataclasses import replace

from client.kits import Kits, standing_of
from configs.errors import RunError
from configs.schema import Study
from configs.site import SiteConfig


def serve_kit(config: SiteConfig, study: Study) -> None:
    """Make ready what runs a study's kit, before a patient is read; nothing for a study without one.

    Raises:
        RunError: the kit is not approved here, or cannot run. KitError: it is not here.
    """
    if study.kit is None:
        return
    from client.children.of_kits import KitChildren  # a kit is rare, and these commands start quickly without one
    from client.children.slots import Slots
    from strategies.kits.shelf import SHELF

    if (denial := standing_of(config, study)) is not None:
        raise RunError(denial.reason)
    SHELF.finder, SHELF.run = Kits(config).files, config.kit_run
    SHELF.hold(study.kit)
    if config.kit_run == "forked":
        KitChildren().serve(study, config.site)
        assert isinstance(SHELF.children, Slots)
        SHELF.children = replace(SHELF.children, paced=False)

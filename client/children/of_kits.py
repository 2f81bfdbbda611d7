"""The children of a worker that run studies' kits.

`KitChildren` is made before a patient is read, as it forks. For each study it then says what the children are to do:
the zygote finds the kit's files by their digest, loads what they import, and opens nothing of them.
"""

from client.children.slots import Slots
from client.children.zygote import Work, Zygote
from configs.schema import Study
from strategies.kits.shelf import SHELF


class KitChildren:
    """A zygote for the kits of one process; where kits are, SHELF says (strategies/kits/shelf.py)."""

    def __init__(self) -> None:
        self._zygote, self._described = Zygote(_prepare, ended=_end), b""

    def serve(self, study: Study, site: str) -> None:
        """Let the children to come work for a study.

        Raises:
            RunError: they cannot: the kit is not here, or lacks what it imports.
        """
        if study.kit is None:
            SHELF.children = None
            return
        described = study.canonical.encode()
        if described != self._described:
            self._described = b""
            self._zygote.prepare(described)
            self._described = described
        announced, train = study.announced_patients(site) or 0, study.announced_train_patients(site) or 0
        paced = study.privacy.keys.budgeted
        SHELF.children = Slots(self._zygote, study.kit.patient_s, tested=max(0, announced - train), paced=paced)


def _end(why: str) -> BaseException:
    """Return what ends this process, as no other zygote can be had: it has seen patients. The node starts another."""
    return SystemExit(why)


def _prepare(described: bytes) -> Work:
    """Return what the children of a study do; nothing of its kit is executed."""
    import json

    from configs.load import study_from
    from strategies.kits.probed import preload
    from strategies.learning import learning_of
    from strategies.models.of_a_kit import KitArchitecture
    from strategies.privacy.engines.forked import PatientWork

    study = study_from(json.loads(described))
    assert study.kit is not None
    preload(SHELF.files(study.kit).modules)
    learning = learning_of(study)
    assert isinstance(learning.architecture, KitArchitecture)
    return PatientWork(learning, learning.architecture.score, learning.architecture.open)

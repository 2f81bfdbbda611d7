"""The children of a worker that run studies' kits.

`KitChildren` is made before a patient is read, as it forks. For each study it then says what the children are to do:
the zygote finds the kit's files by their digest, loads what they import, and opens nothing of them.
"""

from client.children.one_file import only_file
from client.children.slots import Slots
from client.children.zygote import Work, Zygote
from configs.schema import Study
from strategies.kits.packed import RECORD, told
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


class KitWork:
    """What the children of a study do; the kit is executed by `answer` alone, in a child.

    Args:
        model: the work on the kit's model; None where the study takes a reader alone from it.
    """

    def __init__(self, model: Work | None) -> None:
        self._model = model

    def load(self, shared: bytes) -> None:
        """Take the parameters."""
        if self._model is not None:
            self._model.load(shared)

    def answer(self, patient: bytes) -> bytes:
        """Return a patient's gradient or score, or a record, as float32.

        Raises:
            Exception: of any kind, where there is none.
        """
        if not patient.startswith(RECORD):
            assert self._model is not None
            return self._model.answer(patient)
        reader, path, content = told(patient)
        only_file(path, content)
        return SHELF.of_name(reader.partition("/")[0]).reader(reader).decode(path).tobytes()


def _prepare(described: bytes) -> Work:
    """Return what the children of a study do; nothing of its kit is executed."""
    import json

    from configs.load import study_from
    from strategies.kits.probed import preload
    from strategies.learning import learning_of
    from strategies.models.of_a_kit import KitArchitecture
    from strategies.models.registry import study_parameters
    from strategies.privacy.engines.forked import PatientWork

    study = study_from(json.loads(described))
    assert study.kit is not None
    SHELF.hold(study.kit)
    preload(SHELF.files(study.kit).modules)
    architecture = learning_of(study).architecture if study_parameters(study) else None
    if not isinstance(architecture, KitArchitecture):
        return KitWork(None)
    return KitWork(PatientWork(learning_of(study), architecture.score, architecture.open))

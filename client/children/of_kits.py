"""The children of a worker that run studies' kits.

`KitChildren` is made before a patient is read, as it forks. For each study it then says what the children are to do:
the zygote finds the kit's files by their digest, loads what they import, and opens nothing of them.
"""

from typing import cast

from client.children.one_file import only_file
from client.children.slots import Slots
from client.children.zygote import Work, Zygote
from configs.kit import PART
from configs.schema import Record, Study
from strategies.kits.packed import RECORD, told
from strategies.kits.shelf import SHELF


class KitChildren:
    """Zygotes for the kits of one process; where kits are, SHELF says (strategies/kits/shelf.py).

    The steps of a training have one; what is decoded before them, by the thread that reads, has another, so that no
    slot waits for a reading.
    """

    def __init__(self) -> None:
        self._steps, self._readings = _Prepared(), _Prepared()

    def serve(self, study: Study, site: str) -> None:
        """Let the children to come work for a study.

        Raises:
            RunError: they cannot: the kit is not here, or lacks what it imports.
        """
        if study.kit is None:
            SHELF.children = None
            return
        self._steps.serve(study)
        readings = None
        if _is_read_before(study):
            self._readings.serve(study)
            readings = self._readings.zygote
        announced, train = study.announced_patients(site) or 0, study.announced_train_patients(site) or 0
        paced = study.privacy.keys.budgeted
        tested = max(0, announced - train)
        SHELF.children = Slots(self._steps.zygote, study.kit.patient_s, tested=tested, paced=paced, readings=readings)


class _Prepared:
    """A zygote, and the study that its children work for."""

    def __init__(self) -> None:
        self.zygote, self._described = Zygote(_prepare, ended=_end), b""

    def serve(self, study: Study) -> None:
        """Make it ready for a study.

        Raises:
            RunError: it cannot be made ready.
        """
        described = study.canonical.encode()
        if described != self._described:
            self._described = b""
            with self.zygote.lock:
                self.zygote.prepare(described)
            self._described = described


def _is_read_before(study: Study) -> bool:
    """Return whether a kit decodes records when the data are read, for an encoder."""
    records = cast("tuple[Record, ...]", study.records)
    return any(PART.fullmatch(column.reader) for column in records if column.encoder is not None)


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

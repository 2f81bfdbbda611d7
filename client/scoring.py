"""The use of a study's final model on this hospital's own patients, by a process that has left the network.

    python -m client.scoring FOLDER REQUEST    # 0: prints one JSON record; 3: it cannot, with the reason printed

`archipel-site predict` and `evaluate` start it, as `review --data` starts its own. It is fenced as the worker is, reads
the rows, and hands what it makes of them to the command, which is not connected to anything. The model is the one that
was kept at the study's end, or a file of `archipel export` of that very study.
"""

import hashlib
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.admission import Admissions
from client.fence import fence
from client.id_hashes import prepare_hashes
from client.kit_served import serve_kit
from client.site_file import load_site
from configs.commands import prepare
from configs.errors import ArchipelError, DataError, RecordError, RunError
from configs.records import fields
from configs.records.exported import Exported
from configs.records.local_use import LocalFigures, Recalibration, Scores
from configs.schema import CsvFile, Study
from configs.shown import DIGITS, escaped
from configs.site import Dataset, SiteConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from strategies.exchange.arrays import Arrays
    from strategies.learning import Learning

PREDICT, EVALUATE = "predict", "evaluate"


@dataclass(frozen=True)
class Request:
    """What is asked of the process. `data` and `model` are files, empty for the study's own.

    `personal` asks for the model that this hospital made of the last one for itself (client/after_end.py).
    """

    task: str
    study: str
    data: str = ""
    model: str = ""
    recalibrate: bool = False
    personal: bool = False


@dataclass(frozen=True)
class Used:
    """The model in use, whole: with this hospital's own arrays. `mark` is a warning that goes with it."""

    arrays: "Arrays"
    sha256: str
    mark: str


def answer(folder: Path, request: Request) -> Scores | LocalFigures:
    """Leave the network, put up the fence, read the rows, and return what was asked.

    Raises:
        ArchipelError: the data or the model cannot be used.
    """
    from client.forwarder import leave_network_but

    config = load_site(folder)
    leave_network_but(config.worker_network)
    prepare_hashes(config)
    data = Path(request.model).read_bytes() if request.model else b""
    extra = [Dataset("", CsvFile(Path(request.data)), "")] if request.data else []
    fence(replace(config, datasets=(*config.datasets, *extra)), books=False)
    admissions = Admissions.open(config.admissions)
    study = admissions.require_known(request.study).study
    serve_kit(config, study)
    used = _personal(config, study) if request.personal else _used(config, study, data, request.model)
    return evaluated(config, study, used) if request.task == EVALUATE else predicted(config, study, used, request)


def _used(config: SiteConfig, study: Study, data: bytes, source: str) -> Used:
    """Return the model to use: of a file, or the one that was kept.

    Raises:
        RunError: it is none of this study, or none was kept.
    """
    from client.after_end import own_model
    from client.kept_models import kept, model_of, read_model
    from client.personal import Personal
    from strategies.exchange.tensors import digest
    from strategies.models.registry import study_parameters

    if study.scaling == "site":
        raise RunError("expected inputs by public ranges, found scaling: site; no such model is used here")
    personal = Personal(study, config.site, config.personal).final()
    if not data:
        arrays, end = model_of(config, study), kept(config, study.sha256)
        assert end is not None
        mark = "" if not end.code else f"{end.outcome}: {end.why}"
        return Used({**arrays, **personal, **own_model(config, study, end.rounds)}, end.model_sha256, mark)
    about = exported(data, source)
    if about.study_sha256 != study.sha256:
        raise RunError(
            f"{source}: expected a model of study {study.sha256[:DIGITS]}, found one of {about.study_sha256[:DIGITS]} "
            f"({escaped(about.study[:60])}); give that study's digest, or this study's model"
        )
    arrays = read_model(data, study_parameters(study), source)
    if digest(arrays) != about.model_sha256:  # the journal will name this digest
        raise RunError(f"{source}: expected the arrays of the model that it names, found others; export the run again")
    return Used({**arrays, **personal}, about.model_sha256, escaped(about.mark[:200]))


def _personal(config: SiteConfig, study: Study) -> Used:
    """Return the model that the hospital made of the last one for itself.

    Raises:
        RunError: there is none.
    """
    from client.after_end import personal_path
    from client.kept_models import kept, read_model
    from strategies.models.registry import study_parameters

    end = kept(config, study.sha256)
    path = personal_path(config, study.sha256, end.rounds if end else 0)
    if not path.is_file():
        raise RunError("--personal: expected a study with training.personalise that is over here, found no such model")
    data = path.read_bytes()
    return Used(read_model(data, study_parameters(study), str(path)), hashlib.sha256(data).hexdigest(), "")


def exported(data: bytes, source: str) -> Exported:
    """Return what a file of `archipel export --format safetensors` says of itself.

    Raises:
        RunError: it is no such file.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        return fields.read(Exported, json.loads(header["__metadata__"]["archipel"]))
    except (ValueError, KeyError, TypeError, RecursionError, RecordError):
        text = "expected a file of archipel export --format safetensors, found another; export the run again"
        raise RunError(f"{source}: {text}") from None


def evaluated(config: SiteConfig, study: Study, used: Used) -> LocalFigures:
    """Return how good the model is on the hospital's own test patients.

    Raises:
        DataError: site.yaml names no data set for the study, or there is no test patient.
    """
    import numpy as np

    from strategies.learning import learning_of
    from strategies.tasks.metrics import interval, resampled
    from strategies.tasks.outcome_figures import outcome_figures

    learning, test = learning_of(study), _patients(config, study).test
    if not test.rows:
        raise DataError("expected patients who were kept aside for the test, found none")
    objective, predictions = learning.objective, learning.predictions(used.arrays, test)
    y = objective.in_unit(test.outcomes)
    asked = objective.metrics_of([objective.metrics[0].name, *study.evaluation.metrics, *objective.always])
    values = resampled(asked, y, [predictions], test.owners, seed=study.seed)
    outcome = None
    if objective.outcome is not None:
        rows = np.asarray(test.outcomes, np.float64), predictions[:, objective.outcome], test.owners
        outcome = outcome_figures(rows, {}, study.evaluation.thresholds, seed=study.seed)
    return LocalFigures(
        study=study.sha256,
        name=study.name,
        model_sha256=used.sha256,
        mark=used.mark,
        patients=test.count,
        metrics={metric.name: interval(values.get(metric.name)) for metric in asked},
        calibration=objective.bins(y, predictions),
        outcome=outcome,
    )


def predicted(config: SiteConfig, study: Study, used: Used, request: Request) -> Scores:
    """Return the model's predictions of rows as a CSV file's text.

    Raises:
        SourceError, DataError: the rows cannot be read, or too few patients can recalibrate.
    """
    from client.connectors.features import rows_of_features
    from strategies.learning import learning_of

    learning = learning_of(study)
    recalibration = _recalibrated(config, study, learning, used) if request.recalibrate else None
    source = file_of_rows(config, study, Path(request.data)) if request.data else _dataset(config, study).source
    rows = rows_of_features(source, study)
    predictions = learning.predictions(used.arrays, rows.patients(study))
    if recalibration is not None:
        predictions = _through(recalibration, predictions, learning.objective.outcome)
    names, width = learning.objective.predicted, predictions.shape[1]
    if len(names) != width:  # a task type of others that does not name them
        names = tuple(f"{names[0]} ({number + 1} of {width})" for number in range(width))
    text = _csv(names, rows.labels, predictions, rows.unknown)
    return Scores(
        model_sha256=used.sha256,
        mark=used.mark,
        rows=len(rows.unknown),
        csv=text,
        oddities=tuple(rows.oddities),
        recalibration=recalibration,
    )


def _recalibrated(config: SiteConfig, study: Study, learning: "Learning", used: Used) -> Recalibration:
    """Return the recalibration that the hospital's training patients ask for.

    Raises:
        DataError: the task has no outcome, or too few patients have it.
    """
    import numpy as np

    from client.recalibration import fit

    column = learning.objective.outcome
    if column is None:
        raise DataError(f"recalibrate: expected a task with one outcome (binary), found {study.task.type}")
    train = _patients(config, study).train
    y = np.asarray(train.outcomes, np.float64)
    ill = len(np.unique(train.owners[y == 1]))
    probability = learning.predictions(used.arrays, train)[:, column]
    recalibration = fit(probability, y, ill, train.count - ill)
    return replace(recalibration, study=study.sha256, model_sha256=used.sha256)


def _through(recalibration: Recalibration, predictions: "NDArray[np.float64]", outcome: int | None) -> Any:
    """Return the probabilities of both words, recalibrated."""
    import numpy as np

    from client.recalibration import apply

    assert outcome is not None
    probability = apply(recalibration, predictions[:, outcome])
    both = [1.0 - probability, probability]
    return np.stack(both if outcome == 1 else both[::-1], axis=1)


def _patients(config: SiteConfig, study: Study) -> Any:
    from client.patients import load_patients

    return load_patients(_dataset(config, study).source, study, config.site)


def file_of_rows(config: SiteConfig, study: Study, path: Path) -> CsvFile:
    """Return a file of new rows, written as the study's data set is where that is a file too."""
    dataset = config.dataset(study.name)
    if dataset is None or not isinstance(dataset.source, CsvFile):
        return CsvFile(path, root=dataset.source.root if dataset else None)
    return replace(dataset.source, path=path)


def _dataset(config: SiteConfig, study: Study) -> Dataset:
    if (dataset := config.dataset(study.name)) is None:
        raise DataError("expected a data set of this study in site.yaml, found none; add it to datasets")
    return dataset


def _csv(
    columns: tuple[str, ...], labels: Mapping[str, list[str]], predictions: "NDArray[np.float64]", unknown: list[int]
) -> str:
    import csv

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*labels, *columns, "columns unknown"])
    for number, (values, count) in enumerate(zip(predictions.tolist(), unknown, strict=True)):
        writer.writerow([*(label[number] for label in labels.values()), *map(repr, values), count])
    return stream.getvalue()


def main(arguments: list[str]) -> int:
    """`FOLDER REQUEST`, a JSON object."""
    prepare(alone=True, guard=False)
    folder, request = arguments
    try:
        result = answer(Path(folder), Request(**json.loads(request)))
        print(json.dumps(fields.plain(result)))
    except (ArchipelError, OSError) as error:
        print(error)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

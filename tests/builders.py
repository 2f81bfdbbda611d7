"""Small studies, made-up patients and messages for tests; every number here is invented."""

import copy
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from numpy.typing import NDArray

from configs import wire
from configs.load import study_from
from configs.schema import Study
from configs.strict_yaml import dump_yaml
from configs.wire import ArraySpec
from strategies.data.table import TablePatients
from strategies.exchange.flower import identify, name_message
from strategies.exchange.messages import content

SERVER_NODE = 1
Arrays = dict[str, NDArray[np.float32]]

_DOCUMENT: dict[str, Any] = {
    "name": "test-study",
    "purpose": "Show that the tests can fail",
    "task": {"type": "binary", "target": "disease"},
    "patient_id": None,
    "features": {
        "age": {"type": "number", "range": [20, 90]},
        "sex": {"type": "category", "values": ["female", "male"]},
    },
    "cohort": {"brest": 60, "lille": 100, "lyon": 80},
    "model": {"name": "logistic"},
    "training": {
        "strategy": {"name": "fedavg"},
        "rounds": 3,
        "local": {"epochs": 1, "batch_size": "full", "learning_rate": 0.5},
    },
    "privacy": {"mode": "local", "epsilon": 3.0, "delta": 1e-5, "clip_norm": 1.0},
    "evaluation": {"test_fraction": 0.0},
    "seed": 0,
}
DIVERGING = {"local": {"batch_size": "full", "steps": 30, "learning_rate": 1000.0, "weight_decay": 10.0}}


def study(**changes: Any) -> Study:
    """A valid study of three hospitals. A mapping is merged into its section; a section given as None is left out."""
    document = copy.deepcopy(_DOCUMENT)
    for section, value in changes.items():
        if value is None:
            del document[section]
        elif (section == "privacy" and value.get("mode") == "none") or (section == "task" and "time" in value):
            document[section] = value
        elif isinstance(value, Mapping) and section in ("training", "privacy", "evaluation", "task"):
            document[section] = document[section] | value
        else:
            document[section] = value
    return study_from(document, source="test")


def plain(**changes: Any) -> Study:
    """The same without privacy."""
    return study(privacy={"mode": "none"}, **changes)


def counting(**changes: Any) -> Study:
    """A study that asks the same hospitals for statistics; a section given is the whole section."""
    document = {key: value for key, value in _DOCUMENT.items() if key not in ("model", "evaluation")}
    document |= {
        "task": {"type": "statistics", "target": "disease", "bins": 5},
        "training": {"quorum": 2},
        "privacy": {"mode": "local", "epsilon": 0.5, "delta": 1e-5},
    }
    return study_from(copy.deepcopy(document | changes), source="test")


def patients(
    count: int,
    *,
    inputs: int = 2,
    rows_each: int | list[int] = 1,
    seed: int = 0,
    classes: int | None = 2,
    scale: float = 1.0,
) -> TablePatients:
    """Made-up patients as a model reads them; `classes` None makes a regression's target in [-1, 1]."""
    rng = np.random.default_rng([seed, count, inputs])
    lengths = np.full(count, rows_each) if isinstance(rows_each, int) else np.array(rows_each)
    rows = int(lengths.sum())
    x = (scale * rng.uniform(-1, 1, (rows, inputs))).astype(np.float32)
    y = rng.uniform(-1, 1, rows) if classes is None else rng.integers(0, classes, rows)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TablePatients(x, y.astype(np.float32), np.repeat(np.arange(count), lengths), starts)


def random_arrays(parameters: Mapping[str, ArraySpec], seed: int = 0, scale: float = 1.0) -> Arrays:
    """Normal parameters of these shapes."""
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.normal(size=shape)).astype(np.float32) for name, (shape, _) in parameters.items()}


def flat(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """All parameters in a row."""
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays.values()])


def same_bits(a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two models agree to the last bit."""
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and a[n].tobytes() == b[n].tobytes() for n in a)


def become_a_server() -> None:
    """Flower's messages ask who sends them; in a deployment the runtime sets this."""
    identify(node_id=SERVER_NODE, run_id=1, task_id=1)


def message(records: RecordDict, message_type: str, node: int = 7) -> Message:
    """A message from the coordinator to a node."""
    become_a_server()
    made = Message(records, dst_node_id=node, message_type=message_type)
    name_message(made, uuid.uuid4().hex)
    return made


def packed_in(records: RecordDict) -> bytes:
    """The bytes that a seal holds."""
    packed = records.config_records[wire.SEAL][wire.PACKED]
    assert isinstance(packed, bytes)
    return packed


def hello_message(study: Study, node: int = 7, **fields: Any) -> Message:
    """The coordinator's proposal."""
    proposal: dict[str, str | int] = {"protocol": wire.PROTOCOL, "study": study.canonical, **fields}
    return message(content("hello", proposal), wire.HELLO, node)


def train_message(study: Study, number: int, start: Arrays, parameters: Mapping[str, ArraySpec]) -> Message:
    """The coordinator's round."""
    fields: dict[str, str | int] = {"study_sha256": study.sha256, "round": number}
    return message(content("train", fields, start, parameters), wire.TRAIN)


def context(node: int = 7) -> Context:
    """What Flower hands to a ClientApp beside the message."""
    return Context(run_id=1, node_id=node, node_config={"partition-id": 0}, state=RecordDict(), run_config={})


def write_simulated(folder: Path, document: dict[str, Any], sites: Iterable[str]) -> Path:
    """Write a study that is simulated from the folder's own files, SITE.csv each; return its path."""
    document["simulation"] = {"sites": {site: {"connector": "csv", "path": f"{site}.csv"} for site in sites}}
    path = folder / "study.yaml"
    path.write_text(dump_yaml(document))
    return path

"""What does it take to read a hospital's rows, beside pandas?

    python -m simulations.benchmarks.reading [--rows 2000000] [--stores parquet csv postgresql] [--url U]

Made-up patients, one row each: an id, an outcome, measured values with gaps, whole numbers, and categories, 40 columns
in all. One JSON line a store: seconds and memory of `load_patients`, which reads, checks, tells patients apart, orders
and splits them; of pandas, which reads, moves values to their ranges, makes numbers of categories, fills a float32
matrix and splits it by a hash of the id; and the ratios. Each side is a process of its own, in turn; memory is its
peak above what it held before it read. Medians. For PostgreSQL, U is the address of one where a table may be made.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from configs.load import study_from
from configs.schema import CsvFile, DataSource, SqlQuery, Study
from configs.schema.source import ParquetFiles

STORES = ("parquet", "csv", "postgresql")
MEASURED, COUNTS, CATEGORIES = 24, 6, 8
WORDS = ("none", "mild", "moderate", "severe", "extreme")
URL = "READING_URL"
TABLE, QUERY = "reading", "select * from reading"


def study() -> Study:
    """Return a study of all 40 columns."""
    features: dict[str, Any] = {f"measured_{i}": {"type": "number", "range": [20, 180]} for i in range(MEASURED)}
    features |= {f"count_{i}": {"type": "number", "range": [0, 90]} for i in range(COUNTS)}
    features |= {f"word_{i}": {"type": "category", "values": list(WORDS[: 2 + i % 4])} for i in range(CATEGORIES)}
    return study_from(
        {
            "name": "reading",
            "purpose": "Measure how rows are read",
            "task": {"type": "binary", "target": "ill"},
            "patient_id": "id",
            "features": features,
            "model": {"name": "logistic"},
            "training": {
                "strategy": {"name": "fedavg"},
                "rounds": 1,
                "quorum": 1,
                "local": {"batch_size": "full", "learning_rate": 0.1},
            },
            "privacy": {"mode": "none"},
            "evaluation": {"test_fraction": 0.2},
        }
    )


def main(arguments: list[str] | None = None) -> int:
    """Print one line a store; as a child, one side's figures."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.reading")
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--stores", nargs="*", default=STORES[:2], choices=STORES)
    parser.add_argument("--url", default="", help="of a PostgreSQL where a table may be made")
    parser.add_argument("--side", choices=("ours", "pandas", "write"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(arguments)
    if options.side == "write":
        write(options.folder, options.rows, options.stores, os.environ.get(URL, ""))
        return 0
    if options.side:
        print(json.dumps(measured(options.side, options.stores[0], options.folder)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        child("write", options.stores, Path(folder), options)  # a child's peak begins at its parent's, so that is small
        for store in options.stores:
            print(json.dumps(compared(store, Path(folder), options)), flush=True)
    return 0


def compared(store: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return both sides' medians, and the ratios of ours to pandas's."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "pandas": []}
    for _ in range(options.repetitions):
        for side, results in runs.items():
            results.append(json.loads(child(side, [store], folder, options)))
    middle = {
        side: {name: statistics.median(run[name] for run in results) for name in results[0]}
        for side, results in runs.items()
    }
    ours, pandas = middle["ours"], middle["pandas"]
    row: dict[str, Any] = {"store": store, "rows": options.rows, "columns": 2 + MEASURED + COUNTS + CATEGORIES}
    for name in ours:
        row |= {f"{name}_ours": round(ours[name], 2), f"{name}_pandas": round(pandas[name], 2)}
        row[f"{name}_ratio"] = round(ours[name] / max(pandas[name], 1e-9), 3)
    return row


def child(side: str, stores: Sequence[str], folder: Path, options: argparse.Namespace) -> str:
    """Return what a process of its own prints that does one side's work."""
    command = [sys.executable, "-m", "simulations.benchmarks.reading", "--side", side, "--rows", str(options.rows)]
    command += ["--folder", str(folder), "--stores", *stores]
    environment = os.environ | {URL: options.url}
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def measured(side: str, store: str, folder: Path) -> dict[str, float]:
    """Return what one side took, in this process: seconds, of them busy, and peak memory above the start's in MB."""
    work = ours if side == "ours" else with_pandas
    imported(side, store)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work(store, folder)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "busy_s": busy, "peak_mb": (after.ru_maxrss - before.ru_maxrss) / 1024}


def imported(side: str, store: str) -> None:
    """Import what a side needs, so that it is not measured."""
    modules = ["client.patients"] if side == "ours" else ["pandas"]
    modules += {"parquet": ["pyarrow.parquet"], "postgresql": ["psycopg"]}.get(store, [])
    for module in modules:
        import_module(module)


def source_of(store: str, folder: Path) -> DataSource:
    """Return where a store's rows are."""
    if store == "csv":
        return CsvFile(folder / "rows.csv")
    if store == "parquet":
        return ParquetFiles(folder / "rows.parquet")
    return SqlQuery(URL, QUERY, query_timeout_s=3600)


def ours(store: str, folder: Path) -> None:
    """Read the rows as a hospital's worker does."""
    from client.patients import load_patients

    split = load_patients(source_of(store, folder), study(), "lille")
    _ = split.train.digest, split.test.digest


def with_pandas(store: str, folder: Path) -> None:
    """Read the rows and make of them what a model reads, as one would with pandas."""
    import pandas as pd  # a package of the tests alone

    asked = study()
    table = frame(store, folder, ["id", "ill", *(feature.name for feature in asked.features)])
    table = table[table["id"].notna() & table["ill"].isin([0, 1])]
    x, column = np.empty((len(table), len(asked.inputs)), np.float32), 0
    for feature in asked.features:
        cells = table[feature.name]
        if feature.type == "number":
            low, high = feature.minimum or 0.0, feature.maximum or 0.0
            scaled = (cells.clip(low, high) - (low + high) / 2) / ((high - low) / 2)
            x[:, column] = scaled.fillna(0.0)
            column += 1
        else:
            codes = pd.Categorical(cells, categories=list(feature.values)).codes
            for i in range(1, len(feature.values)):
                x[:, column] = codes == i
                column += 1
    y = table["ill"].to_numpy(np.float32)
    in_test = pd.util.hash_pandas_object(table["id"], index=False).to_numpy() % 5 == 0
    _ = x[~in_test], y[~in_test], x[in_test], y[in_test]


def frame(store: str, folder: Path, columns: list[str]) -> Any:
    """Return a store's columns as pandas reads them."""
    import pandas as pd

    if store == "csv":
        return pd.read_csv(folder / "rows.csv", usecols=columns, dtype={"id": str})
    if store == "parquet":
        return pd.read_parquet(folder / "rows.parquet", columns=columns)
    import psycopg

    with psycopg.connect(os.environ[URL]) as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pandas would rather be given SQLAlchemy, which is slower
        return pd.read_sql(QUERY, connection)[columns]


def write(folder: Path, rows: int, stores: Sequence[str], url: str) -> None:
    """Write the made-up rows to each store."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        "id": pa.array([f"P{number:08d}" for number in rng.permutation(rows).tolist()]),
        "ill": pa.array(rng.integers(0, 2, rows)),
    }
    for i in range(MEASURED):
        columns[f"measured_{i}"] = pa.array(np.round(rng.normal(100, 30, rows), 1 + i % 3), mask=rng.random(rows) < 0.1)
    for i in range(COUNTS):
        columns[f"count_{i}"] = pa.array(rng.integers(0, 100, rows))
    for i in range(CATEGORIES):
        words = WORDS[: 2 + i % 4]
        codes = pa.array(rng.integers(0, len(words), rows).astype(np.int8))
        columns[f"word_{i}"] = pa.DictionaryArray.from_arrays(codes, pa.array(words)).cast(pa.string())
    table = pa.table(columns)
    pq.write_table(table, folder / "rows.parquet")
    if {"csv", "postgresql"} & {*stores}:
        pyarrow.csv.write_csv(table, folder / "rows.csv", pyarrow.csv.WriteOptions(quoting_style="none"))
    if "postgresql" in stores:
        _fill(folder / "rows.csv", table.column_names, url)


def _fill(path: Path, columns: list[str], url: str) -> None:
    import psycopg

    kinds = {"measured": "double precision", "count": "integer", "ill": "integer"}
    declared = ", ".join(f"{name} {kinds.get(name.split('_')[0], 'text')}" for name in columns)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"drop table if exists {TABLE}".encode())
        cursor.execute(f"create table {TABLE} ({declared})".encode())
        with path.open("rb") as file, cursor.copy(f"copy {TABLE} from stdin (format csv, header)".encode()) as copy:
            while data := file.read(1 << 20):
                copy.write(data)


if __name__ == "__main__":
    sys.exit(main())

"""Private training under each of OpenBLAS's kernels: the same bits, and its cost.

    python -m simulations.benchmarks.kernels [--quick] [--kernels Haswell SkylakeX]

A processor with AVX-512 runs other products of matrices than one without. One JSON line a row, each kernel in a process
of its own: `digest` of a trained study's weights with one and two threads, one value in all rows; then our time over
the plain loop's and over Opacus's, as in `dp_step`: epochs on 2,000 patients, and single steps on larger batches.
`skipped` says why where a kernel cannot run here. Only this command chooses a kernel; products of training are exact
under each (strategies/exact/layers.py).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

KERNELS = ("Haswell", "SkylakeX", "Zen")
THREADS = (1, 2)
CASES = (("logistic_end_to_end", 32), ("mlp_end_to_end", 32), ("mlp", 256), ("mlp", 2048))
SECONDS = 6.0  # of turns for each case


def main(arguments: list[str] | None = None) -> None:
    """Print the rows of each kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two turns each, to see that it runs")
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS), choices=KERNELS)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        for row in _measured(options.child, 0.0 if options.quick else SECONDS):
            print(json.dumps(row), flush=True)
        return
    for kernel in options.kernels:
        for row in _rows(kernel, quick=options.quick):
            print(json.dumps({"kernel": kernel} | row), flush=True)


def _rows(kernel: str, *, quick: bool) -> Iterator[dict[str, Any]]:
    for threads in THREADS:
        command = [sys.executable, "-m", "simulations.benchmarks.kernels", "--child", str(threads)]
        environment = os.environ | {"OPENBLAS_CORETYPE": kernel}
        done = subprocess.run(
            command + (["--quick"] if quick else []), env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode < 0:  # an illegal instruction
            yield {"skipped": f"the processor lacks its instructions (signal {-done.returncode})"}
            return
        if done.returncode:
            raise SystemExit(f"{kernel}, {threads} threads: ended with code {done.returncode}\n{done.stderr[-2000:]}")
        ran, *rows = map(json.loads, done.stdout.splitlines())
        if ran["runs"] != kernel:
            yield {"skipped": f"NumPy's OpenBLAS runs {ran['runs']} in its place"}
            return
        yield from rows


def _measured(threads: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield what a process with the kernel finds: which it runs, the digest and, on one thread, the ratios."""
    import time
    import warnings

    import torch
    from threadpoolctl import threadpool_info, threadpool_limits

    from simulations.benchmarks import dp_step
    from strategies.exact.layers import one_thread

    warnings.simplefilter("ignore")
    (blas,) = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    yield {"runs": blas["architecture"]}
    torch.set_num_threads(1)
    one_thread()  # once: what comes now stays
    with threadpool_limits(threads, user_api="blas"):
        yield {"threads": threads, "digest": _digest()}
    for case, batch in CASES if threads == 1 else ():
        whole = case in dp_step.END_TO_END
        sides = dp_step._epochs(case.partition("_")[0], batch) if whole else dp_step._steps(case, batch, "cpu")
        ratios = dp_step._ratios(sides, seconds, time.process_time)
        yield {"case": case, "batch": batch} | {f"ratio_{name}": round(ratio, 3) for name, ratio in ratios.items()}


def _digest() -> str:
    """Return the SHA-256 of the weights of studies, trained for some rounds: plain and private, several rows each."""
    import hashlib

    import numpy as np

    from client.trainer import Trainer
    from configs.schema import Local, Model, Task
    from strategies.data.table import TablePatients
    from strategies.learning import learning
    from strategies.privacy.plan import PrivacyPlan
    from strategies.privacy.randomness import Randomness
    from strategies.releases.base import Fit

    digest, chance = hashlib.sha256(), np.random.default_rng(0)
    classes = ("a", "b", "c")
    for task, rows_each in ((Task("binary", "y"), 1), (Task("multiclass", "y", classes), 2)):
        learned = learning(task, Model("mlp", (64, 300), "random"), 13)
        count = 600
        x = chance.uniform(-1, 1, (count, 13)).astype(np.float32)
        y = chance.integers(0, max(2, learned.architecture.outputs), count).astype(np.float32)
        starts = np.arange(0, count + 1, rows_each)
        people = TablePatients(x, y, np.arange(count) // rows_each, starts)
        plan = PrivacyPlan(1.0, 1.0, 0.3, steps_per_round=3, rounds=1, delta=1e-5, expected_patients=90.0)
        for local, private in ((Local(32, 0.1), False), (Local(None, 0.05, optimizer="adam"), True)):
            draws = Randomness.seeded(0, "here", 1)
            weights = Trainer(learned).fit(Fit(learned.initial(0), people, local, 3, draws, plan if private else None))
            for name in sorted(weights):
                digest.update(weights[name].tobytes())
            digest.update(learned.predict(weights, x).tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()

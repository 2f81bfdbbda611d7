"""Epsilon of four accountants side by side, and what 200 distinct rounds cost to account for.

    python -m simulations.benchmarks.accounting [--quick]

Every epsilon is per patient, add or remove one, at delta 1e-5. Rows `{"case": "epsilon"}`: Google's PLD accountant
(dp-accounting with its defaults) is the reference; ours, Opacus's PRV and Google's RDP are shown as differences from
it, the last also as a share. PRV is left out where it would take minutes. Rows `{"case": "distinct"}`: 200 rounds of
ten steps, each with a noise multiplier and sampling rate of its own, ours against dp-accounting composing them one by
one; each run is a process of its own with one thread, `seconds` being the answer alone (imports done), of ours the
median of runs before and after theirs, which is timed once as it takes half a minute, `memory_mb` the process's peak.
Quote the ratios. All of it takes about two minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from strategies.privacy.accounting import SampledGaussian, epsilon
from strategies.privacy.plan import Budget, calibrate

ROOT = Path(__file__).resolve().parents[2]
DELTA = 1e-5
TARGETS = (0.1, 0.5, 1.0, 3.0, 8.0, 20.0, 40.0)
RATES_AND_STEPS = ((0.1, 100), (0.02, 1000), (0.05, 10_000))
ROUNDS = 200


def main(arguments: list[str] | None = None) -> None:
    """Measure every case and print one JSON line a row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two rows and one repeat: a check that all of it runs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if find_spec("dp_accounting") is None:
        parser.error("expected dp-accounting, which the tests install too, found none; run: make setup")
    if options.child:
        _child(options.child, 8 if options.quick else ROUNDS)
        return
    targets, settings = (TARGETS[3:4], RATES_AND_STEPS[:2]) if options.quick else (TARGETS, RATES_AND_STEPS)
    for rate, steps in settings:
        for target in targets:
            _print(_compared(target, rate, steps))
    _distinct(1 if options.quick else options.repeats, quick=options.quick)


def _compared(target: float, rate: float, steps: int) -> dict[str, Any]:
    """Return the four accountants on the plan that we would make for an epsilon."""
    plan = calibrate(
        Budget(target, DELTA), clip_norm=1.0, sampling_rate=rate, steps_per_round=steps, rounds=1, patients=1000
    )
    event = SampledGaussian(plan.noise_multiplier, rate, steps)
    reference, renyi = google_pld([event]), google_rdp([event])
    return {
        "case": "epsilon",
        "noise_multiplier": plan.noise_multiplier,
        "sampling_rate": rate,
        "steps": steps,
        "reference": round(reference, 5),
        "ours_above": round(epsilon([event], DELTA) - reference, 6),
        "prv_above": round(opacus_prv([event]) - reference, 6) if 0.3 <= target <= 20 else None,
        "rdp_above": round(renyi - reference, 5),
        "rdp_share": round(renyi / reference - 1, 3),
    }


def google_pld(events: list[SampledGaussian]) -> float:
    """Return dp-accounting's privacy loss distributions with its defaults, one composition an event."""
    import dp_accounting
    from dp_accounting import pld

    return _composed(pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE), events)


def google_rdp(events: list[SampledGaussian]) -> float:
    """Return dp-accounting's Renyi accountant with its defaults."""
    import dp_accounting
    from dp_accounting import rdp

    return _composed(
        rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE), events
    )


def _composed(accountant: Any, events: list[SampledGaussian]) -> float:
    import dp_accounting

    for event in events:
        gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        accountant.compose(dp_accounting.PoissonSampledDpEvent(event.sampling_rate, gaussian), event.steps)
    return float(accountant.get_epsilon(DELTA))


def opacus_prv(events: list[SampledGaussian]) -> float:
    """Return Opacus's PRV accountant with its defaults."""
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(e.noise_multiplier, e.sampling_rate, e.steps) for e in events]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of logarithms of zero, and of a range that it tries on the way
        return float(accountant.get_epsilon(DELTA))


def _distinct(repeats: int, *, quick: bool) -> None:
    rows: dict[str, list[dict[str, float]]] = {"ours": [], "dp-accounting": []}
    for turn in range(repeats):
        rows["ours"].append(_run("ours", quick=quick))
        if turn == 0:
            rows["dp-accounting"].append(_run("dp-accounting", quick=quick))
    seconds = {side: statistics.median(run["seconds"] for run in runs) for side, runs in rows.items()}
    for side, runs in rows.items():
        _print(
            {
                "case": "distinct",
                "side": side,
                "rounds": 8 if quick else ROUNDS,
                "epsilon": round(runs[0]["epsilon"], 5),
                "seconds": round(seconds[side], 3),
                "memory_mb": round(max(run["memory_mb"] for run in runs)),
            }
        )
    _print(
        {
            "case": "distinct",
            "ratio": "dp-accounting/ours",
            "value": round(seconds["dp-accounting"] / seconds["ours"], 1),
        }
    )


def _run(side: str, *, quick: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "simulations.benchmarks.accounting", "--child", side]
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command + ["--quick"] * quick, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _child(side: str, rounds: int) -> None:
    events = [SampledGaussian(3.0 * (1 + i / 100), 0.05 + i / 1000, 10) for i in range(rounds)]
    account = google_pld if side == "dp-accounting" else lambda those: epsilon(those, DELTA)
    account([SampledGaussian(3.0, 0.5, 1)])  # imports
    start = time.perf_counter()
    epsilons = account(events)
    seconds = time.perf_counter() - start
    _print({"epsilon": epsilons, "seconds": seconds, "memory_mb": _peak_mb()})


def _peak_mb() -> float:
    """Return this process's own peak: what getrusage says is at least that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

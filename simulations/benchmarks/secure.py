"""What do masks and exact noise of a secure sum cost at a hospital, and at the coordinator?

    python -m simulations.benchmarks.secure [--parameters 1000000] [--repetitions 5]

One JSON line for each number of hospitals: processor time per million parameters of one hospital's masks with all
others, of its noise, and of the coordinator's adding up (`open_ms_per_million`); at last how many models of memory the
coordinator holds while fifty vectors arrive, beside the one that arrives (`coordinator_models`). Medians, one thread.
"""

import argparse
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from strategies.privacy.cipher import CipherStream
from strategies.secure.discrete import discrete_gaussian
from strategies.secure.pairs import MaskKey, Pairs
from strategies.secure.ring import NOISE_SCALE, PROOF, Opening, mask

HOSPITALS = (4, 10, 50)


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each number of hospitals, then one of the coordinator's memory."""
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks.secure")
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args(arguments)
    for row in measured(options.parameters, options.repetitions):
        print(json.dumps(row), flush=True)
    return 0


def measured(parameters: int, repetitions: int) -> Iterator[dict[str, Any]]:
    """Yield the lines."""
    per_million, noise = 1e6 / parameters, CipherStream.system()
    noise_ms = _milliseconds(lambda: discrete_gaussian(noise, parameters, NOISE_SCALE), repetitions) * per_million
    for hospitals in HOSPITALS:
        names = [f"hospital-{number}" for number in range(hospitals)]
        own, keys = MaskKey(names[0]), {name: MaskKey(name).public for name in names[1:]}
        pairs = Pairs(own, {own.site: own.public, **keys}, bytes(32))
        words = np.zeros(parameters + PROOF, np.uint64)
        opening = Opening(parameters)

        def masks(pairs: Pairs = pairs, words: Any = words, others: list[str] = names[1:]) -> None:
            mask(words, pairs.streams(bytes(32), others))

        def opens(opening: Opening = opening, words: Any = words, count: int = hospitals) -> None:
            for _ in range(count):
                opening.add(words)

        yield {
            "hospitals": hospitals,
            "parameters": parameters,
            "mask_ms_per_million": round(_milliseconds(masks, repetitions) * per_million, 2),
            "noise_ms_per_million": round(noise_ms, 1),
            "open_ms_per_million": round(_milliseconds(opens, repetitions) * per_million, 2),
        }
    yield {"coordinator_models": round(_coordinator_models(parameters), 2)}


def _milliseconds(work: Callable[[], object], repetitions: int) -> float:
    times = []
    for _ in range(repetitions):
        before = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - before))
    return statistics.median(times)


def _coordinator_models(parameters: int) -> float:
    """Return the peak memory of adding up fifty vectors, in models of float32."""
    arrives = np.zeros(parameters + PROOF, np.uint64)
    tracemalloc.start()
    try:
        opening = Opening(parameters)
        for _ in range(HOSPITALS[-1]):
            opening.add(arrives)
        opening.total()
        return tracemalloc.get_traced_memory()[1] / (4 * parameters)
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    sys.exit(main())

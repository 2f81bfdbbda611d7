"""AUROC at epsilon 8, 3, 1 and 0.5 on the four heart disease hospitals.

Each is paired with what it is held against.

    python -m simulations.benchmarks.utility                under two minutes; one JSON line a row
    python -m simulations.benchmarks.utility --splits 50    more splits of the same patients, narrower intervals

The systems, the splits and their training are heart_utility.py's, which also judges targets and shows how the preset's
settings were chosen; read there what the intervals speak of. Here each epsilon's row has its paired differences, split
by split, against five: `federated_without_privacy` (the cost of privacy), `clipping_alone` (what of it is the noise's:
the same without noise, sampled and clipped all the same), `pooled` (the cost of privacy and of distance), `local_only`
(the gain over staying alone, mean of the hospitals' own models) and `best_local` (the same for the hospital that needs
the others least; a flattered reference, being the best as the test patients say).
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

from configs.errors import ArchipelError
from simulations.benchmarks.heart_utility import (
    CLIPPING,
    EPSILONS,
    LOCAL_ONLY,
    NO_PRIVACY,
    POOLED,
    Row,
    System,
    add_splits,
    scored,
)


def rows(seeds: Sequence[int], noise_seeds: int = 1, epsilons: Sequence[float] = EPSILONS) -> Iterator[Row]:
    """Yield the references, then each epsilon with its differences. `seeds` are the splits."""
    scores, ridge = scored(seeds, noise_seeds, epsilons)
    best = scores.best_local()
    references: dict[str, System] = {
        "federated_without_privacy": NO_PRIVACY,
        "clipping_alone": CLIPPING,
        "pooled": POOLED,
        "local_only": LOCAL_ONLY,
        "best_local": best,
    }
    more: dict[str, Row] = {"pooled": {"ridge": ridge}, "best_local": {"site": best[0].partition(" ")[2]}}
    for name, system in references.items():
        yield scores.row(system) | {"system": name} | more.get(name, {})
    for epsilon in epsilons:
        federated = ("federated", epsilon)
        against = {f"against_{name}": scores.difference(federated, system) for name, system in references.items()}
        yield scores.row(federated) | against


def main(argv: Sequence[str] | None = None) -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(
        prog="python -m simulations.benchmarks.utility",
        description="AUROC by epsilon on the heart disease study, paired with every reference.",
    )
    add_splits(parser)
    arguments = parser.parse_args(argv)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.splits)
    try:
        for row in rows(seeds, arguments.noise_seeds):
            print(json.dumps(row), flush=True)
    except ArchipelError as error:
        print(f"utility: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A worker that the kernel kills while it looks at patients: ours, ended at the first of them in a training.

python -P tests/client/dying_worker.py FOLDER WHEN    # training, reading, always (of nobody too), never,
                                                       # twice (before the booking, then while it reads),
                                                       # told (never: it says so once it reads)
"""

import os
import sys
from pathlib import Path
from typing import Any

from client import worker

TOLD = "the worker reads its patients"


def main(folder: str, when: str) -> int:
    """Answer until the worker dies. What dies is put in place behind the fence, where the parts are imported."""
    begin, starts = worker.Worker.__init__, Path(folder) / "starts"
    first = not starts.exists()
    starts.touch()

    def dying(self: worker.Worker, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        from client import reading
        from client.patients import load_patients
        from client.trainer import Trainer

        fit, load, new = Trainer.fit, load_patients, worker.require_new

        def dies(self: Any, wanted: Any) -> Any:
            if (wanted.patients.count and when == "training") or when == "always":
                os._exit(137)
            return fit(self, wanted)

        def dies_reading(*arguments: Any) -> Any:
            if when == "reading" or (when == "twice" and not first):
                os._exit(137)
            if when == "told":
                print(TOLD, file=sys.stderr, flush=True)
            return load(*arguments)

        def dies_before(*arguments: Any) -> None:
            if when == "twice" and first:
                os._exit(137)
            new(*arguments)

        Trainer.fit = dies  # type: ignore[assignment,method-assign]
        reading.load_patients = dies_reading  # type: ignore[assignment,attr-defined]
        worker.require_new = dies_before  # type: ignore[assignment]
        if when == "told":  # nor does it look by itself
            watch = reading.watch
            reading.watch = lambda current, every_s=1.0, wake=None: watch(current, 3600.0, wake)

    worker.Worker.__init__ = dying  # type: ignore[method-assign]
    return worker.main([folder])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A worker that the kernel kills while it looks at patients: ours, ended at the first of them in a training.

python -P tests/client/dying_worker.py FOLDER WHEN    # before: when they are read; always: of nobody too
"""

import os
import sys
from typing import Any

from client import reading, site, worker


def main(folder: str, when: str) -> int:
    """Answer until the worker dies."""
    fit, load = site.Trainer.fit, reading.load_patients

    def dies(self: Any, start: Any, people: Any, *rest: Any, **options: Any) -> Any:
        if people.count or when == "always":
            os._exit(137)
        return fit(self, start, people, *rest, **options)

    def dies_reading(*arguments: Any) -> Any:
        if when == "reading":
            os._exit(137)
        return load(*arguments)

    site.Trainer.fit, reading.load_patients = dies, dies_reading  # type: ignore[method-assign]
    return worker.main([folder])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

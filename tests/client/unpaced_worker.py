"""A hospital's worker with repeatable noise, whose children follow each other without slots.

python -P tests/client/unpaced_worker.py FOLDER
"""

import sys

from client import worker
from client.children import of_kits
from client.children.slots import Slots

if __name__ == "__main__":
    of_kits.Slots = lambda *words, paced, **named: Slots(*words, **named, paced=False)  # type: ignore[assignment,attr-defined,misc]
    sys.exit(worker.main(sys.argv[-1:], seeded=True))

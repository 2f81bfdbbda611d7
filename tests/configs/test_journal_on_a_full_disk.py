"""A record that does not fit on the disk leaves no half of itself behind; the next one that fits follows the last."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = """
import resource, signal, sys
from pathlib import Path
from configs.journal import Journal, verify
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that may not grow further: EFBIG in the midst of a record
path, room = Path(sys.argv[1]), int(sys.argv[2])
journal = Journal(path)
journal.append("first", text="x" * 40)
size = path.stat().st_size
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, hard))
for _ in range(2):
    try:
        journal.append("second", text="x" * 400)
        raise SystemExit("it was written")
    except OSError:
        pass
    assert path.stat().st_size == size, f"{path.stat().st_size - size} bytes were left behind"
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
journal.append("third")
verify(path)
print([line.split('"kind":"')[1].split('"')[0] for line in path.read_text().splitlines()])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize("room", [0, 10, 300])
def test_a_record_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, room: int) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path / "journal.jsonl"), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['first', 'third']"

"""What the process that sees patients may open: real processes on this kernel, each with the fence and one deed."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.admission import Admissions
from client.fence import folders_of
from client.ledger import Ledger
from client.surroundings import Surroundings
from client.worker_process import WorkerProcess
from configs import wire
from configs.frame import Frame
from configs.site import SiteConfig, load_site
from configs.strict_yaml import dump_yaml
from tests.builders import study

Replacement = Callable[..., None]
FENCED = """
import os, sys
from pathlib import Path
from client.fence import fence
from client.isolation import die_with_parent
from configs.site import load_site
die_with_parent()
here = Path({here!r})
config = load_site(here / "hospital")
held = fence(config, books=True)
print(held, flush=True)
{deed}
print("done")
"""
EXPORT = "age,sex,disease\n" + "".join(f"{30 + n % 40},{'female' if n % 2 else 'male'},{n % 2}\n" for n in range(120))


@pytest.fixture
def here() -> Iterator[Path]:
    """A machine with a hospital's folder, its data, and things that are none of the worker's business."""
    with TemporaryDirectory(prefix="fence-", dir="/var/tmp") as folder:
        here = Path(folder)
        for name in ("hospital/keys", "data", "other", *(f"hospital/{n}" for n in ("outbox", "models", "personal"))):
            (here / name).mkdir(parents=True)
        (here / "hospital" / "keys" / "signing.key").write_text("secret")
        (here / "hospital" / "outbox" / "1.frame").write_text("left")
        (here / "other" / "letter.txt").write_text("private")
        (here / "data" / "lille.csv").write_text(EXPORT)
        document = {
            "site": "lille",
            "coordinator": "coord.example.org:8443",
            "datasets": {"test-study": {"connector": "csv", "path": str(here / "data" / "lille.csv")}},
        }
        (here / "hospital" / "site.yaml").write_text(dump_yaml(document))
        (here / "hospital" / "journal.jsonl").write_text("{}\n")
        Ledger.open(here / "hospital" / "ledger.sqlite").close()
        yield here


def fenced(here: Path, deed: str) -> "subprocess.CompletedProcess[str]":
    """Do something behind the fence; skipped where the kernel has none."""
    code = FENCED.format(here=str(here), deed=deed)
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120, cwd=here)
    if "Landlock" not in done.stdout or "seccomp" not in done.stdout:
        pytest.skip("this kernel has no Landlock or no seccomp")
    return done


FORBIDDEN = {
    "another folder's file": "open(here / 'other/letter.txt').read()",
    "another folder's names": "os.listdir(here / 'other')",
    "the folder above": "os.listdir(here)",
    "a key": "open(here / 'hospital/keys/signing.key').read()",
    "the names of keys": "os.listdir(here / 'hospital/keys')",
    "a link in the data folder that leads out": "open(here / 'data/link').read()",
    "a home": "os.listdir(os.path.expanduser('~root'))",
    "another process": "open('/proc/1/environ').read()",
    "the starter's variables": "open(f'/proc/{os.getppid()}/environ').read()",
    "the data, written": "open(here / 'data/lille.csv', 'a')",
    "the data, truncated": "os.truncate(here / 'data/lille.csv', 0)",
    "the data, removed": "os.unlink(here / 'data/lille.csv')",
    "the data, renamed": "os.rename(here / 'data/lille.csv', here / 'data/x.csv')",
    "a file beside the data": "open(here / 'data/out.txt', 'w')",
    "a folder beside the data": "os.mkdir(here / 'data/out')",
    "a link beside the data": "os.symlink('/', here / 'data/out')",
    "site.yaml": "open(here / 'hospital/site.yaml', 'a')",
    "the journal": "open(here / 'hospital/journal.jsonl', 'a')",
    "the outbox": "open(here / 'hospital/outbox/1.frame', 'a')",
    "a new file in the outbox": "open(here / 'hospital/outbox/2.frame', 'w')",
    "a new file in the folder": "open(here / 'hospital/note.txt', 'w')",
    "a model that was kept, written": "open(here / 'hospital/models/a.safetensors', 'w')",
    "what it keeps, moved out": "(config.personal / 'a').write_text('x'); "
    "os.rename(config.personal / 'a', here / 'hospital/models/a')",
    "the ledger, removed": "os.unlink(here / 'hospital/ledger.sqlite')",
    "the ledger, replaced": "os.rename(here / 'hospital/site.yaml', here / 'hospital/ledger.sqlite')",
    "a temporary file": "open('/tmp/archipel-out', 'w')",
    "shared memory": "open('/dev/shm/archipel-out', 'w')",
    "a disk": "open('/dev/sda', 'rb')",
    "a program": "import subprocess; subprocess.run(['/bin/true'])",
    "a shell": "assert os.system('true') != 0; raise PermissionError",
    "a program in place of this one": "os.execv('/bin/true', ['true'])",
    "Python again": "import subprocess; subprocess.run([sys.executable, '-c', ''])",
    "a Unix socket": "import socket; socket.socket(socket.AF_UNIX)",
    "a port": "import socket; socket.create_server(('127.0.0.1', 0))",
    "a connection": "import socket; socket.create_connection(('127.0.0.1', PORT))",
    "a signal to its starter": "os.kill(os.getppid(), 10)",
    "another namespace": "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
    "raise PermissionError if c.unshare(0x10000000) else RuntimeError",
    "a debugger": "import ctypes; c = ctypes.CDLL(None, use_errno=True); "
    "raise PermissionError if c.ptrace(16, os.getppid(), 0, 0) else RuntimeError",
}


@pytest.mark.parametrize("name", sorted(FORBIDDEN))
def test_the_fence_lets_nothing_through_that_training_does_not_need(here: Path, name: str) -> None:
    (here / "data" / "link").symlink_to(here / "other" / "letter.txt")
    with socket.create_server(("127.0.0.1", 0)) as server:
        deed = FORBIDDEN[name].replace("PORT", str(server.getsockname()[1]))
        code = f"try:\n    {deed}\nexcept (PermissionError, FileNotFoundError) as e:\n    print('refused', e.errno)\n"
        done = fenced(here, code if deed.startswith("open('/dev/sda'") else code.replace(", FileNotFoundError", ""))
    assert "refused" in done.stdout, done.stdout + done.stderr
    assert (here / "data" / "lille.csv").read_text() == EXPORT
    assert (here / "hospital" / "ledger.sqlite").stat().st_size > 0


ALLOWED = {
    "the data": "assert open(here / 'data/lille.csv').readline().startswith('age')",
    "another file of the data folder": "assert os.listdir(here / 'data')",
    "site.yaml": "open(here / 'hospital/site.yaml').read()",
    "the records": "open(here / 'hospital/journal.jsonl').read(); open(here / 'hospital/outbox/1.frame').read()",
    "nothing at all": "open(os.devnull, 'w').write('x')",
    "chance": "assert len(os.urandom(8) + open('/dev/urandom', 'rb').read(8)) == 16",
    "a thread": "import threading; t = threading.Thread(target=print); t.start(); t.join()",
    "a module that is imported late": "import torch, scipy.stats, psycopg, opacus; torch.zeros(3) + 1",
    "the threads of the C library's products": "import numpy; from threadpoolctl import threadpool_limits; "
    "threadpool_limits(1, user_api='blas')",
    "a Parquet file, by a library that is imported late": "from client.connectors.parquet import read_parquet; "
    "from client.connectors.notes import Notes; from pathlib import Path; "
    "columns = read_parquet(here / 'data/a.parquet', {'age': 'number'}, (), Notes()); "
    "assert columns['age'].numbers().tolist() == [50, 61]",
    "the time here": "import zoneinfo; zoneinfo.ZoneInfo('Europe/Paris')",
    "the ledger": "from client.ledger import Ledger; "
    "Ledger.open(config.ledger)._connection.execute('CREATE TABLE t (x)')",
    "the hospital's own arrays": "from configs.files import write_atomically; (config.personal / 'ab').mkdir(); "
    "write_atomically(config.personal / 'ab/1.safetensors', b'a', private=True); "
    "write_atomically(config.personal / 'ab/1.safetensors', b'b', private=True); "
    "assert os.listdir(config.personal / 'ab') == ['1.safetensors']",
    "the list of studies": "from client.admission import Admissions; a = Admissions.open(config.admissions); "
    "a.propose('ab' * 32, 'x', '{}')",
}


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_what_training_needs_is_inside_the_fence(here: Path, name: str) -> None:
    pq.write_table(pa.table({"age": [50, 61]}), here / "data" / "a.parquet")
    done = fenced(here, ALLOWED[name])
    assert done.stdout.endswith("done\n"), done.stderr


@pytest.mark.parametrize("how", ["renamed", "link moved", "link in the middle", "link of a link"])
def test_an_export_that_is_replaced_is_read_all_the_same(here: Path, how: str) -> None:
    old, new = here / "data", here / "data-2"
    new.mkdir()
    path = {"renamed": old / "lille.csv", "link moved": here / "now.csv"}.get(how, here / "now" / "lille.csv")
    (new / "lille.csv").write_text("new")
    if how == "link moved":
        path.symlink_to(old / "lille.csv")
    elif how == "link in the middle":
        path.parent.symlink_to(old)
    elif how == "link of a link":
        (here / "links").mkdir()
        (here / "links" / "current").symlink_to(old)
        path.parent.symlink_to(here / "links" / "current")
    site = here / "hospital" / "site.yaml"
    site.write_text(site.read_text().replace(str(old / "lille.csv"), str(path)))
    replace = {
        "renamed": f"os.replace({str(new / 'lille.csv')!r}, {str(path)!r})",
        "link moved": f"os.symlink({str(new / 'lille.csv')!r}, 'l'); os.replace('l', {str(path)!r})",
        "link in the middle": f"os.symlink({str(new)!r}, 'l'); os.replace('l', {str(path.parent)!r})",
        "link of a link": f"os.symlink({str(new)!r}, 'l'); os.replace('l', {str(here / 'links' / 'current')!r})",
    }[how]
    outside = f"import os; os.read(0, 1); os.chdir({str(here)!r}); {replace}; print('replaced', flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", outside], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as helper:
        assert helper.stdin is not None
        assert helper.stdout is not None
        deed = f"""
assert open({str(path)!r}).readline().startswith('age')
os.write({helper.stdin.fileno()}, b'x')
os.read({helper.stdout.fileno()}, 100)
assert open({str(path)!r}).read() == 'new'
"""
        code = FENCED.format(here=str(here), deed=deed)
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            pass_fds=[helper.stdin.fileno(), helper.stdout.fileno()],
        )
    if "Landlock" not in done.stdout:
        pytest.skip("this kernel has no Landlock")
    assert done.stdout.endswith("done\n"), done.stderr


def test_the_root_of_all_files_is_never_opened(tmp_path: Path) -> None:
    for path in ("/lille.csv", "/not-there/at/all.csv", "/proc/x.csv", str(tmp_path / "a" / "b.csv")):
        assert Path("/") not in folders_of(Path(path))


def approved(config: SiteConfig) -> Frame:
    """A proposal of a study that people here approved."""
    asked = study(cohort={"lille": 100, "lyon": 80})
    admissions = Admissions.open(config.admissions)
    admissions.propose(asked.sha256, asked.name, asked.canonical)
    admissions.decide(asked.sha256, "approved")
    return Frame("hello", {"protocol": wire.PROTOCOL, "study": asked.canonical})


def edited(here: Path, old: str, new: str, *, renamed: bool) -> None:
    """Edit site.yaml, as an editor that writes into it or as one that puts another file in its place."""
    site = here / "hospital" / "site.yaml"
    text = site.read_text().replace(old, new)
    assert text != site.read_text()
    beside = here / "hospital" / "site.yaml.new"
    if renamed:
        beside.write_text(text)
        beside.replace(site)
    else:
        site.write_text(text)


def moved_within(here: Path, *, renamed: bool) -> None:
    (here / "data" / "lille.csv").rename(here / "data" / "lille-2.csv")
    edited(here, "lille.csv", "lille-2.csv", renamed=renamed)


def moved_elsewhere(here: Path, *, renamed: bool) -> None:
    (here / "data-2").mkdir()
    (here / "data" / "lille.csv").rename(here / "data-2" / "lille.csv")
    edited(here, f"{here}/data/", f"{here}/data-2/", renamed=renamed)


def folder_replaced(here: Path, *, renamed: bool) -> None:
    (here / "data-2").mkdir()
    (here / "data-2" / "lille.csv").write_text(EXPORT)
    (here / "data").rename(here / "data-1")
    (here / "data-2").rename(here / "data")


def followed(here: Path, *, renamed: bool) -> None:
    """Whoever replaces it twice is followed twice."""
    moved_elsewhere(here, renamed=renamed)
    (here / "data-2" / "lille.csv").rename(here / "data" / "lille.csv")
    edited(here, f"{here}/data-2/", f"{here}/data/", renamed=renamed)


@pytest.mark.parametrize(
    ("how", "renamed"),
    [
        (moved_within, True),
        (moved_elsewhere, True),
        (moved_elsewhere, False),
        (folder_replaced, True),
        (followed, True),
    ],
)
def test_where_the_rows_are_is_followed_whatever_was_replaced(here: Path, how: Replacement, renamed: bool) -> None:
    config = load_site(here / "hospital")
    hello = approved(config)
    worker = WorkerProcess(config)
    try:
        for is_replaced in (False, True, False):
            before = worker.pid
            if is_replaced:
                how(here, renamed=renamed)
            _, reply = worker.ask(Frame(hello.form, hello.fields), 1_000_000)
            if "Landlock" not in worker.fence:
                pytest.skip("this kernel has no Landlock")
            assert reply.form == "hello reply", reply.fields
        assert worker.pid == before  # nothing changed since
    finally:
        worker.stop()


UNHEEDED = {
    "a mistake": ("connector: csv", "connector: none of these"),
    "another identity": ("datasets:\n  test-study:\n", "datasets:\n  test-study:\n    identity: others\n"),
    "another study": ("test-study", "another-study"),
    "another policy": ("site: lille\n", "site: lille\npolicy: {max_epsilon: 1.0}\n"),
}


@pytest.mark.parametrize("renamed", [True, False])
@pytest.mark.parametrize("what", sorted(UNHEEDED))
def test_of_a_site_file_nothing_else_is_followed_before_the_nodes_next_start(
    here: Path, what: str, renamed: bool
) -> None:
    around = Surroundings(load_site(here / "hospital"), {})
    edited(here, *UNHEEDED[what], renamed=renamed)
    assert around.replaced() == ""
    edited(here, UNHEEDED[what][1], UNHEEDED[what][0], renamed=renamed)
    assert around.replaced() == ""
    moved_within(here, renamed=renamed)
    assert around.replaced() == "where site.yaml says that the rows are"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("name", [".pgpass", "elsewhere.pem"])
def test_files_of_a_data_base_that_are_replaced_are_followed(here: Path, name: str, there: bool) -> None:
    connection = {"connector": "sql", "url_env": "EDS", "query": "SELECT * FROM heart"}
    document = {"site": "lille", "coordinator": "coord.example.org:8443", "datasets": {"test-study": connection}}
    (here / "hospital" / "site.yaml").write_text(dump_yaml(document))
    path = here / name
    if there:
        path.write_text("old")
    config = load_site(here / "hospital")
    around = Surroundings(config, {"HOME": str(here), "EDS": f"postgresql://db/eds?sslrootcert={here}/elsewhere.pem"})
    assert around.replaced() == ""
    (here / "new").write_text("new")
    (here / "new").replace(path)
    assert around.replaced() == str(path)
    path.unlink()
    assert around.replaced() == ""  # for a moment between two


def test_a_deployed_worker_trains_behind_the_fence_and_reads_a_replaced_export(here: Path) -> None:
    config: SiteConfig = load_site(here / "hospital")
    hello = approved(config)
    worker = WorkerProcess(config)
    try:
        worker.start()
        if "Landlock" not in worker.fence:
            pytest.skip("this kernel has no Landlock")
        assert worker.pid is not None
        status = Path(f"/proc/{worker.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert "Max core file size        0                    0" in Path(f"/proc/{worker.pid}/limits").read_text()
        assert os.stat(f"/proc/{worker.pid}/mem").st_uid == 0  # not dumpable: its owner is root, whoever runs it
        for n in range(2):
            replacement = here / "data" / f"new-{n}.csv"
            replacement.write_text(EXPORT)
            replacement.replace(here / "data" / "lille.csv")
            _, reply = worker.ask(hello, 1_000_000)
            assert reply.form == "hello reply", reply.fields
    finally:
        worker.stop()
    with sqlite3.connect(config.ledger) as ledger:
        assert ledger.execute("SELECT count(*) FROM releases").fetchone() == (0,)

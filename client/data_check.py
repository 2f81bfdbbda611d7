"""The checks of the data sets in `archipel-site check`.

They say whether the data can be read, and whether they fit the study that was approved. Patients' rows are read for
approved studies alone, and by a process that has left the network as the worker does:

    python -m client.data_check FOLDER STUDY [DIGEST [all]]    # 0 all is well; 3 not, with the reason printed

Without a digest no row is read: a file is there, a data base opens a session and plans the query. With `all`, which a
person asks for (`archipel-site check --data`, `review --data`), a study that is not approved yet is read too, or one
whose canonical form comes on standard input in a digest's place (`-`), and the whole page is printed as JSON
(client/looking.py). No value of a patient is ever printed, nothing of it leaves.
"""

import json
import os
import sys
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import TimeoutExpired
from typing import cast

from client.admission import Admissions
from client.fence import fence
from client.findings import DATA, IT, NOTE, OK, WARNING, WRONG, Finding
from client.id_hashes import id_key, keep, kept, prepare_hashes
from client.identities import forgotten
from client.isolation import worker_variables
from client.kit_served import serve_kit
from client.site_file import load_site
from configs.commands import prepare
from configs.errors import ArchipelError, RunError
from configs.folder import typed
from configs.kit import PART
from configs.load import study_from
from configs.parts import run
from configs.records import fields
from configs.records.data_page import DataFinding, DataPage
from configs.schema import Record, Study
from configs.shown import DIGITS
from configs.site import Dataset, SiteConfig, same_rows_twice

GIVEN, EVERYTHING = "-", "all"
START_TIMEOUT_S = 300  # of the process that looks, beside what a query may take


def look_at_data(config: SiteConfig) -> Iterator[Finding]:
    """Yield a finding for each data set of site.yaml."""
    admissions = Admissions.open(config.admissions)
    try:
        approved = {a.name: a.sha256 for a in admissions.all() if a.state == "approved"}
    finally:
        admissions.close()
    for dataset in config.datasets:
        yield _absent(dataset) or _looked_at(config, dataset, approved.get(dataset.study))
    for twin, other in same_rows_twice(config.datasets):
        text = (
            f"{other.study} and {twin.study} read the same rows under two identities: their patients have two budgets"
        )
        yield Finding("data", WARNING, text, "the DPO and whoever wrote site.yaml", "give both the same identity")
    for lost in forgotten(config):  # to mend in time: while the new identity has spent less than the old one
        verdict = WRONG if lost.more_than_its_successor else WARNING
        yield Finding("identity", verdict, str(lost), "the DPO and whoever wrote site.yaml", lost.todo)
    if not config.datasets:
        yield Finding("data", WARNING, "site.yaml names no data set", "whoever wrote site.yaml", "add datasets")


def _absent(dataset: Dataset) -> Finding | None:
    """Return what needs no look inside: the file, or the variable with the data base's address."""
    path = dataset.source.path
    is_there = path is None or path.is_file() or (dataset.source.in_parts and path.is_dir())
    if path is not None and (not is_there or not os.access(path, os.R_OK)):
        text = f"{dataset.study}: {path} is not a file that this user can read"
        return Finding("data", WRONG, text, DATA, "correct the path in site.yaml, or the file's permissions")
    root = dataset.source.root
    if root is not None and not (root.is_dir() and os.access(root, os.R_OK | os.X_OK)):
        text = f"{dataset.study}: {root} is not a folder that this user can read"
        return Finding("data", WRONG, text, DATA, "correct root in site.yaml, or the folder's permissions")
    for variable in (name for name in dataset.source.secrets if not os.environ.get(name)):
        text = f"{dataset.study}: the variable {variable}, which holds the data base's address, is not set here"
        return Finding("data", WRONG, text, IT, f"set {variable} where this command and the node start")
    return None


def _looked_at(config: SiteConfig, dataset: Dataset, sha256: str | None) -> Finding:
    """Return what a process without network says of it."""
    from client.connectors.registry import CONNECTORS  # numpy takes a while, and a site may have no data set

    if sha256 is None and not dataset.source.networked:
        return Finding("data", NOTE, f"{dataset.study}: readable; not opened, no study of it is approved")
    connector = CONNECTORS[dataset.source.connector]
    arguments = [str(config.folder), dataset.study, *([sha256] if sha256 else [])]
    timeout_s = START_TIMEOUT_S + dataset.source.reading_time_s + dataset.source.records_time_s
    try:
        done = run(
            "client.data_check", *arguments, folder=config.folder, also=worker_variables(config), timeout_s=timeout_s
        )
        answer = done.stdout.strip() if done.returncode == 3 else "could not be read"
    except TimeoutExpired:
        done, answer = None, f"could not be read in {timeout_s} s"
    if done is None or done.returncode:
        return Finding("data", WRONG, f"{dataset.study}: {answer}", connector.keeper, connector.remedy)
    if sha256 is None:
        text = (
            f"{dataset.study}: the {dataset.source.store} takes the query; no row was read, no study of it is approved"
        )
        return Finding("data", OK, text)
    if oddities := done.stdout.strip():
        look = typed("archipel-site", config.folder, f"check --data {sha256[:DIGITS]}")
        todo = f"see whether this is as it should be; nothing of it leaves; more, and what to write: {look}"
        return Finding("data", WARNING, f"{dataset.study}: {oddities}", connector.keeper, todo)
    return Finding("data", OK, f"{dataset.study}: fits the approved study")


def reviewed(config: SiteConfig, study: Study) -> DataPage:
    """Return what a study would read here, for the person who asked: counts, shares and lines, no value.

    Raises:
        RunError: the data cannot be read, or not in time.
    """
    dataset = config.dataset(study.name)
    if dataset is None:
        raise RunError(f"site.yaml names no data set for {study.name} (datasets)")
    timeout_s = START_TIMEOUT_S + dataset.source.reading_time_s + dataset.source.records_time_s
    arguments, also = (str(config.folder), study.name, GIVEN, EVERYTHING), worker_variables(config)
    try:
        done = run(
            "client.data_check",
            *arguments,
            folder=config.folder,
            also=also,
            timeout_s=timeout_s,
            given=study.canonical,
        )
    except TimeoutExpired:
        raise RunError(f"{study.name}: the data could not be read in {timeout_s} s") from None
    if done.returncode:
        raise RunError(f"{study.name}: {done.stdout.strip() if done.returncode == 3 else 'the data could not be read'}")
    return fields.read(DataPage, json.loads(done.stdout))


def look(folder: Path, name: str, sha256: str | None) -> Iterator[str]:
    """Read a data set for an approved study and yield what is odd about it; without one, see whether it could be read.

    Raises:
        DataError: it cannot be read, or its header does not fit. AdmissionError: the study is not approved.
    """
    config, dataset = apart(folder, name)
    if sha256 is None:
        from client.connectors import try_source

        try_source(dataset.source)
        return
    from client.connectors.notes import Notes
    from client.patients import load_patients

    study, notes = Admissions.open(config.admissions).approved(sha256), Notes(thorough=True)
    _serve_readers(config, study)
    load_patients(dataset.source, study, config.site, notes)
    yield from notes.oddities()
    yield from (finding.text for finding in _shared(config, dataset, notes.ids))


def look_whole(folder: Path, name: str, canonical: str) -> DataPage:
    """Read a data set for a study because a person asks, and return the page of it.

    Raises:
        DataError: it cannot be read, or its header does not fit. ConfigError: the study is none.
    """
    config, dataset = apart(folder, name)
    from client.connectors.notes import Notes
    from client.looking import page_of
    from client.patients import load_patients

    study, notes = study_from(json.loads(canonical)), Notes(thorough=True)
    _serve_readers(config, study)
    people = load_patients(dataset.source, study, config.site, notes)
    page = page_of(study, notes, people, site=config.site, min_patients=config.policy.min_patients)
    return replace(page, findings=(*page.findings, *_shared(config, dataset, notes.ids)))


def _serve_readers(config: SiteConfig, study: Study) -> None:
    """Make ready a study's kit where it reads records; a model of a kit does nothing here.

    Raises:
        RunError: the kit is not approved here, or cannot run. KitError: it is not here.
    """
    if any(PART.fullmatch(column.reader) for column in cast("tuple[Record, ...]", study.records)):
        serve_kit(config, study)


def apart(folder: Path, name: str) -> tuple[SiteConfig, Dataset]:
    """Leave the network, put up the fence, and return the settings and a data set."""
    from client.forwarder import leave_network_but

    config = load_site(folder)
    leave_network_but(config.worker_network)
    prepare_hashes(config)
    fence(config, books=False)
    dataset = config.dataset(name)
    assert dataset is not None
    return config, dataset


def _shared(config: SiteConfig, dataset: Dataset, ids: Collection[str]) -> Iterator[DataFinding]:
    """Compare patients with those of the data sets of other identities that were looked at before, by keyed hashes."""
    from client.connectors.ids import hashed

    hashes = hashed(ids, id_key(config))
    keep(config, dataset.study, hashes)
    for other in config.datasets:
        common = len(hashes & kept(config, other.study)) if other.identity != dataset.identity else 0
        if common:
            text = (
                f"{100 * common / len(hashes):.0f} % of these patients ({common:,}) are in the data set of "
                f"{other.study} too, under another identity ({other.identity!r}, here {dataset.identity!r}): they have "
                "two budgets; give both data sets one identity"
            )
            yield DataFinding(text=text, line=f"identity: {other.identity}")


def main(arguments: list[str]) -> int:
    """`FOLDER STUDY [DIGEST [all]]`."""
    prepare(alone=True)
    folder, name, *rest = arguments
    try:
        if EVERYTHING in rest:
            print(json.dumps(fields.plain(look_whole(Path(folder), name, sys.stdin.read()))))
            return 0
        for line in look(Path(folder), name, rest[0] if rest else None):
            print(line)
    except ArchipelError as error:
        print(error)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

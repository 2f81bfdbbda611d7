"""Findings of `archipel-site check` about study kits: what was changed since it was approved, and what studies lack."""

from collections.abc import Iterator
from contextlib import closing

from client.admission import Admissions
from client.findings import IT, OK, WARNING, WRONG, Finding
from client.kits import FEWEST_DIGITS, Kits, standing_of
from configs.errors import ArchipelError
from configs.folder import typed
from configs.kit import TO_MEND
from configs.shown import escaped
from configs.site import SiteConfig


def look_at_kits(config: SiteConfig) -> Iterator[Finding]:
    """Yield what is wrong with the kits that are here, and with those that studies need."""
    kits = list(Kits(config).all())
    for kit in kits:
        if kit.flaw:
            text = f"{kit.label}: its files are not those that were added: {kit.flaw}"
            yield Finding("kits", WRONG if kit.approval else WARNING, text, IT, TO_MEND)
    with closing(Admissions.open(config.admissions)) as admissions:
        proposed = admissions.all()
    for admission in proposed:
        try:
            study = admission.study
        except ArchipelError:  # the study's own page says so
            continue
        if admission.state != "refused" and (denial := standing_of(config, study)) is not None and study.kit:
            todo = typed("archipel-site", config.folder, f"kit show {study.kit.sha256[:FEWEST_DIGITS]}")
            yield Finding("kits", WARNING, f"{escaped(study.name)}: {denial.reason}", IT, f"see {todo}, or refuse it")
    if approved := sum(kit.approval is not None and not kit.flaw for kit in kits):
        yield Finding("kits", OK, f"{approved} approved, kit_run: {config.kit_run}")

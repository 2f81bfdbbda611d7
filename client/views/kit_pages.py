"""The page of a study kit, for the person who decides about it; nothing of the kit is executed to show it."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from client.kits import FEWEST_DIGITS, Kits, StoredKit
from configs.kit import KitFiles
from configs.schema import Study
from configs.shown import escaped
from configs.site import SiteConfig

USUAL = {"torch", "numpy", "math", "collections", "dataclasses", "functools", "typing", "strategies", "__future__"}
MAY = {
    "forked": (
        "forked: each patient's records are given to a process that has seen nobody else, with no network, no file, no "
        "other process, a limit of memory and a fixed time. This hospital's own node takes its numbers, clips them and "
        "adds the noise. What the kit does with one patient cannot reach another's."
    ),
    "together": (
        "together: its code runs in the worker, one patient after another, with no network. That nobody's numbers "
        "reach another patient rests on a person having read the code."
    ),
}


@dataclass(frozen=True, slots=True)
class KitRow:
    """One thing that is said about a kit."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class KitPage:
    """What a person reads of one kit."""

    label: str
    rows: tuple[KitRow, ...]


def kit_page(config: SiteConfig, kit: StoredKit, probed: str) -> KitPage:
    """Return a kit's page.

    Args:
        probed: what the probe says of it here.
    """
    if kit.files is None:
        return KitPage(kit.label, (KitRow("flaw", kit.flaw),))
    rows = [
        ("flaw", kit.flaw),
        ("digest", kit.sha256),
        ("state", _state(config, kit)),
        ("files", "\n".join(_files(kit.files))),
        ("models", "\n".join(f"{kit.files.about.name}/{name}" for name in kit.files.about.models)),
        ("readers", "\n".join(f"{kit.files.about.name}/{name}" for name in kit.files.about.readers)),
        ("imports", _imports(kit.files)),
        ("requires", ", ".join(kit.files.about.requires) or "nothing but Archipel"),
        ("signed by", "\n".join(_signed(config, kit)) or "nobody"),
        ("may", MAY[config.kit_run]),
        ("probe", probed),
    ]
    return KitPage(kit.label, tuple(KitRow(title, text) for title, text in rows if text))


def study_row(config: SiteConfig, study: Study) -> list[tuple[str, str]]:
    """Return what a study's page says of its kit; nothing of a study without one."""
    if study.kit is None:
        return []
    kit, folder = study.kit, Kits(config)
    there = folder.get(kit.sha256) if (folder.folder / kit.sha256).is_dir() else None
    state = "not here: archipel-site kit add WHEEL" if there is None else _state(config, there)
    return [
        ("own model", f"{kit.name} {kit.version} ({kit.sha256[:FEWEST_DIGITS]}...), {state}\n{MAY[config.kit_run]}")
    ]


def state_line(config: SiteConfig, kit: StoredKit) -> str:
    """Return a kit's line in the list."""
    return f"{kit.label}: {_state(config, kit)}"


def difference(kits: Kits, kit: StoredKit, version: str) -> Iterator[str]:
    """Yield what changed in a kit's sources since another version that is here, as a unified diff.

    Raises:
        KeyError: that version is not here.
    """
    assert kit.files is not None
    name = kit.files.about.name
    older = next((k.files for k in kits.named(name) if k.files and k.files.about.version == version), None)
    if older is None:
        raise KeyError(version)
    for path in sorted({*older.sources, *kit.files.sources}):
        before, after = (each.sources.get(path, b"").decode("utf-8", "replace") for each in (older, kit.files))
        named = f"{version}/{path}", f"{kit.files.about.version}/{path}"
        yield from difflib.unified_diff(before.splitlines(), after.splitlines(), *named, lineterm="")


def _state(config: SiteConfig, kit: StoredKit) -> str:
    if kit.flaw:
        return "changed since it was added"
    if config.policy.kits == "none":
        return "not open to studies: the policy allows no kit (policy.kits)"
    if kit.approval is None:
        return f"waits for a person: archipel-site kit approve {kit.sha256[:FEWEST_DIGITS]}"
    return f"approved on {kit.approval.time[:10]} by {escaped(kit.approval.by)}"


def _files(kit: KitFiles) -> Iterator[str]:
    for path, content in kit.sources.items():
        lines = content.count(b"\n")
        yield f"{path}: {lines:,} line{'' if lines == 1 else 's'}, {len(content):,} bytes"


def _imports(kit: KitFiles) -> str:
    names = [name for name in kit.imports if name != kit.about.package]
    odd = [name for name in names if name not in USUAL]
    return ", ".join(names) + (f"; READ WHY: {', '.join(odd)}" if odd else "")


def _signed(config: SiteConfig, kit: StoredKit) -> Iterator[str]:
    for key in kit.signers:
        yield f"{key}{' (kit_signers)' if key in config.kit_signers else ' (unknown here)'}"
    for key in config.kit_signers:
        if key not in kit.signers:
            yield f"NOT YET by {key} (kit_signers)"

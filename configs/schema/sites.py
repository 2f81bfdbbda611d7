"""The section `simulation`: where the researcher's copy of each hospital's rows lies, one by one or by a pattern.

A pattern stands for the files that it matches, each the hospital's of its name: `data/*.csv` with `data/lille.csv` and
`data/lyon.csv` means lille and lyon. Files are looked for where a file is loaded, never for a study that came over
the wire.

>>> section = Section({"sites": "data/*.txt"}, "simulation", [])
>>> SITES.read(Place(section, "sites", section.take("sites"), {"folder": Path(".")})), section.problems
((), ['simulation.sites: expected hospitals by name, found a pattern of files; list them'])
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.keys.declare import Entries, Key, Part, key
from configs.keys.values import SITE_NAME, Around, Integer, Number, Place, Value
from configs.schema.source import SOURCE, CsvFile, DataSource, FilePath
from configs.sections import Section
from configs.shown import short

ANY = "*"
Sites = tuple[tuple[str, DataSource], ...]


def hospital_flaw(name: str) -> str:
    """Return what is wrong with a hospital's name, nothing where it is one."""
    return "" if SITE_NAME.fullmatch(name) else "expected a hospital's name of a-z, 0-9, - and _; rename it"


class _SiteSources(Value):
    """A mapping of hospital: source, or a pattern of files."""

    expected = "a mapping of hospital: {connector, path}, or a pattern of files as data/*.csv"
    _by_name = Entries(
        SOURCE,
        hospital_flaw,
        expected,
        build=lambda site, source: (site, source),
        member="HOSPITAL",
        split=lambda pair: pair,
    )

    def read(self, at: Place) -> Sites:
        """Return pairs of a hospital and its source, sorted by name."""
        problems = len(at.section.problems)
        if isinstance(at.found, str):
            path = FilePath().read(at)
            return _matches(at, CsvFile(path)) if len(at.section.problems) == problems else ()
        if not isinstance(at.found, Mapping) or ANY not in at.found:
            return self._by_name.read(at)
        section = at.section.section(at.key, self.expected)
        if len(section.values) > 1:
            section.note(ANY, "expected a pattern alone, found hospitals beside it; list all of them, or none")
            return ()
        source = SOURCE.read(Place(section, ANY, section.take(ANY), at.around))
        return _matches(at, source) if len(section.problems) == problems else ()

    def write(self, value: Any) -> dict[str, Any]:
        """Return the mapping of hospitals to their sources."""
        return self._by_name.write(value)

    @property
    def schema(self) -> dict[str, Any]:
        """Return a mapping of sources, or a text."""
        return {"anyOf": [self._by_name.schema, {"type": "string", "minLength": 1}]}

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        """Return the hospitals, and the name that stands for any of them."""
        about = "all hospitals by one pattern of files in the place of a path: each file is the hospital's of its name"
        return (*self._by_name.children, ("", Key(ANY, _Pattern(), about=about)))


class _Pattern(Value):
    expected = "{connector: csv, path: data/*.csv}, or sites: data/*.csv in short"


def _matches(at: Place, source: DataSource) -> Sites:
    """Return each hospital's source by the files that a pattern matches.

    Where none is there, a cohort's hospitals have the files of their names: plans need no data, a simulation says what
    is missing.
    """
    pattern = source.path
    flaw = _flaw(pattern)
    if not at.around.get("looks"):
        flaw = "expected hospitals by name, found a pattern of files; list them"
    if flaw or pattern is None:
        at.note(flaw)
        return ()
    files = sorted(p for p in pattern.parent.glob(pattern.name) if p.is_file() and not p.name.startswith("."))
    names = [member.site for member in at.around.get("cohort", ())]
    if not files and not names:
        where = short(str(pattern), 300)
        at.note(f"expected files, each with the name of a hospital, found none that match {where}; correct the path")
    files = files or [pattern.with_name(name + pattern.suffix) for name in sorted(names)]
    stems, problems = Counter(path.stem for path in files), len(at.section.problems)
    for path in files:
        odd = hospital_flaw(path.stem).partition(";")[0]
        if not odd and stems[path.stem] > 1:
            odd = "expected one file of a hospital, found several of its name"
        if odd:
            at.note(f"{short(path.name)}: {odd}; rename the file, or list the hospitals by name")
    if len(at.section.problems) > problems:
        return ()
    return tuple((path.stem, replace(source, path=path)) for path in sorted(files, key=lambda path: path.stem))  # type: ignore[call-arg]


def _flaw(pattern: Path | None) -> str:
    """Return what is wrong with a pattern of files, nothing where it is one."""
    if pattern is None:
        return "expected a connector that reads a file, found one that reads none; list the hospitals by name"
    if any(ANY in part for part in pattern.parts[:-1]) or ANY not in pattern.name:
        return "expected a pattern with * in the file's name alone, as data/*.csv, found another; correct it"
    return ""


SITES = _SiteSources()


def _sites(section: Section, around: Around) -> Any:
    return SITES.read(Place(section, "sites", None, around)) if {*section.values} - {"tuned"} else ()


@dataclass(frozen=True)
class Tuned:
    """How settings were chosen on real patients before the study was written; `archipel tune` writes it."""

    settings: int = key(Integer(1, 1_000_000), "settings that were tried")
    seeds: int = key(Integer(1, 100_000), "splits into training and validation patients")
    validation: float = key(
        Number("a share above 0 and below 1", 0.0, 0.95, above=True), "the share of training patients who judged them"
    )
    seed: int = key(Integer(0, 2**32 - 1), "the study's seed then: its test patients were not read for the choice")


@dataclass(frozen=True)
class _Simulation:
    sites: Sites = key(
        SITES, "where the researcher's copy of each hospital's rows lies", default=_sites, init=(), unsaid="none"
    )
    tuned: Tuned | None = key(
        Part(Tuned, "a mapping with settings, seeds and validation"),
        "that the settings were chosen on real patients, which no epsilon covers; reports say so",
        default=None,
    )


class _Sources(Part):
    """The section `simulation`, of which a study holds the sources, and whether it was tuned."""

    def read(self, at: Place) -> Any:
        """Return pairs of a hospital and its source, and how the study was tuned."""
        simulation = Part.read(self, at)
        return simulation.sites, simulation.tuned

    def write(self, value: Any) -> dict[str, Any]:
        """Return the sources as a mapping of hospitals, and how the study was tuned."""
        return Part.write(self, _Simulation(*value))


SIMULATION = _Sources(_Simulation, "a mapping with sites")

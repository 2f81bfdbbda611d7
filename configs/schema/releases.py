"""The section `releases`: further releases of each hospital after the training, by name.

Each is asked for once, beside the evaluation. Archipel's own are declared with their results
(configs/records/further.py); any other kind that is registered (strategies/releases/registry.py) brings the keys of its
section.
"""

from dataclasses import dataclass
from typing import Any

from configs.keys.declare import Key, Part
from configs.keys.values import Place, Value
from configs.kinds import Registry
from configs.shown import short


@dataclass(frozen=True)
class ReleaseKeys:
    """What a kind of release declares: its keys in a study, and the record of its result in metrics.json.

    Both are frozen dataclasses: `section` has the release's `epsilon` among its keys, `record` is what
    `Release.combine` returns (configs/records/fields.py says how its fields are written).
    """

    name: str
    section: type
    record: type


@dataclass(frozen=True, slots=True)
class AskedRelease:
    """A release that a study asks for, and what it says of it."""

    name: str
    keys: Any


RELEASE_KEYS: Registry[ReleaseKeys] = Registry("release", ("section", "record"))


class Releases(Value):
    """A mapping of registered releases to their keys."""

    expected = "a mapping of releases"

    def read(self, at: Place) -> tuple[AskedRelease, ...]:
        """Return what is asked for, sorted by name; unknown names are noted."""
        child = at.section.section(at.key, self.expected, required=False)
        releases = []
        for name in sorted(child.values):
            entry = child.take(name)
            if name not in RELEASE_KEYS:
                registered = ", ".join(RELEASE_KEYS.names)
                child.note(short(name), f"unknown release; registered: {registered}")
                continue
            section = Part(RELEASE_KEYS[name].section)
            releases.append(AskedRelease(name, section.read(Place(child, name, entry, at.around))))
        return tuple(releases)

    def write(self, value: tuple[AskedRelease, ...]) -> dict[str, Any]:
        """Return the mapping as a file has it."""
        return {release.name: Part(type(release.keys)).write(release.keys) for release in value}

    @property
    def schema(self) -> dict[str, Any]:
        """Return an object with the registered names."""
        parts = {kind.name: Part(kind.section).schema for kind in RELEASE_KEYS}
        return {"type": "object", "properties": parts, "additionalProperties": False}

    @property
    def children(self) -> tuple[tuple[str, Key], ...]:
        """Return the registered names, each with the sentence of its section."""
        kinds = ((kind, (kind.section.__doc__ or "").partition("\n")[0].rstrip(".")) for kind in RELEASE_KEYS)
        return tuple((kind.name, Key(kind.name, Part(kind.section), about=about)) for kind, about in kinds)

"""The base of journal records: one frozen dataclass for each kind.

A record has the kind's name and its facts.

>>> from configs.records.run_journal import Again
>>> Again.kind, Again(attempt=1, round=2, site="lille", why="lost").to_facts()["why"]
('again', 'lost')
"""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from configs.records.fields import plain, read

Self = TypeVar("Self", bound="Kind")


class Kind:
    """A record's facts. A subclass gives the kind's name and is a frozen dataclass."""

    kind: ClassVar[str]

    def __init_subclass__(cls, *, name: str) -> None:
        """Keep the kind's name."""
        super().__init_subclass__()
        cls.kind = name

    def to_facts(self) -> dict[str, Any]:
        """Return the facts as JSON values; optional ones that are absent are left out."""
        facts: dict[str, Any] = plain(self)
        return facts

    @classmethod
    def from_facts(cls: type[Self], facts: Mapping[str, Any]) -> Self:
        """Return the record that these facts say.

        Raises:
            RecordError: a fact is missing or is of another type.
        """
        return read(cls, facts)

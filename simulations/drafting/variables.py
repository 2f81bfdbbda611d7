"""A column as public documentation describes it, and what a draft needs of it.

>>> Variable("age", "number", low=20.0, high=90.0).is_described, Variable("age", "number", low=20.0).is_described
(True, False)
"""

from dataclasses import dataclass

NUMBER, CATEGORY = "number", "category"


@dataclass(frozen=True)
class Variable:
    """A documented column. `type` is empty where nobody says what it is; `left_out` says why it is no feature.

    `meanings` say what each of `values` stands for. `source` is the name of the file that describes it.
    """

    name: str
    type: str = ""
    label: str = ""
    unit: str = ""
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    meanings: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    left_out: str = ""
    is_id: bool = False
    source: str = ""

    @property
    def is_described(self) -> bool:
        """Return whether nothing is left to be filled in."""
        if self.type == NUMBER:
            return self.low is not None and self.high is not None and self.low < self.high
        return self.type == CATEGORY and len(self.values) > 1

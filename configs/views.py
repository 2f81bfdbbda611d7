"""Views: a command's output as frozen dataclasses, rendered as text, a page or JSON.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Budget:
...     dataset: str
...     left: float
>>> print(to_json([Budget("EDS", math.inf)]))
[
  {
    "dataset": "EDS",
    "left": null
  }
]
"""

import dataclasses
import json
import math
from typing import Any


def to_json(view: object) -> str:
    """Return a view, or a sequence of views, as JSON in ASCII; a number that is not finite is null."""
    return json.dumps(_plain(view), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

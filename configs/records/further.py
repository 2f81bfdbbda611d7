"""The results of a study's further releases, as metrics.json has them under `releases`.

Each is the record that the release's kind declares beside its keys (`ReleaseKeys.record`). Where a file names a release
that is not registered here, its values are kept as they stand: a report draws them as a plain table.

>>> read_further("count of beds", {"together": 12, "ward": "a"}, clean=str.upper)
{'TOGETHER': 12, 'WARD': 'A'}
"""

from collections.abc import Callable, Mapping
from typing import Any

from configs.errors import RecordError
from configs.records.fields import LARGEST, read
from configs.records.inference import INFERENCE_KEYS
from configs.records.kaplan_meier import KAPLAN_MEIER_KEYS
from configs.records.score_sum import SCORE_SUM_KEYS
from configs.records.subgroups import SUBGROUPS_KEYS
from configs.schema.releases import RELEASE_KEYS

for _declared in (INFERENCE_KEYS, SUBGROUPS_KEYS, KAPLAN_MEIER_KEYS, SCORE_SUM_KEYS):  # Archipel's own further releases
    RELEASE_KEYS.register(_declared)


def read_further(name: str, document: Any, *, clean: Callable[[str], str] = str) -> Any:
    """Return one release's result: its record, or plain values where no release of that name is registered.

    Raises:
        RecordError: with every mistake.
    """
    place = f"releases.{clean(name)[:60]}"
    if name in RELEASE_KEYS:
        return read(RELEASE_KEYS[name].record, document, place, clean=clean)
    return _values(document, place, clean)


def _values(value: Any, place: str, clean: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {clean(key): _values(entry, place, clean) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_values(entry, place, clean) for entry in value)
    if isinstance(value, float) and not abs(value) < LARGEST:
        raise RecordError([f"{place}: expected finite numbers, found another"])
    return clean(value) if isinstance(value, str) else value

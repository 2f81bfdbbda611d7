"""models/DIGEST.json: how a study ended, kept at the hospital beside the model that came of it.

>>> end = KeptModel(study="ab", name="heart", outcome="INCOMPLETE", code=3, why="", rounds=0, run="r", coordinator="c")
>>> end.has_model
False
"""

from dataclasses import dataclass
from typing import Annotated

from configs.records.fields import OMIT


@dataclass(frozen=True, kw_only=True)
class KeptModel:
    """models/DIGEST.json."""

    study: Annotated[str, "The study's digest."]
    name: Annotated[str, "The study's name."]
    outcome: Annotated[str, "COMPLETE or INCOMPLETE."]
    code: Annotated[int, "Why it ended (configs/wire.py, ENDS); 0 where it is complete."]
    why: Annotated[str, "The same as a sentence."]
    rounds: Annotated[int, "How many rounds were done."]
    run: Annotated[str, "The run's name."]
    coordinator: Annotated[str, "Address of the coordinator that told it."]
    model_sha256: Annotated[str, "Digest of DIGEST.safetensors beside this file; absent where no model came.", OMIT] = (
        ""
    )
    received: Annotated[str, "When it came (UTC).", OMIT] = ""

    @property
    def has_model(self) -> bool:
        """Return whether a model lies beside it."""
        return bool(self.model_sha256)

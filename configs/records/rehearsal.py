"""What a rehearsal found at one hospital; shown to the person who asked, and kept nowhere.

>>> Leaving(name="model update", times=20, bytes=44, seconds=0.01).why
''
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from configs.records.estimate import Estimate
from configs.records.fields import OMIT


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """One kind of message as it would leave."""

    name: Annotated[str, "What it is."]
    times: Annotated[int, "How often it would leave."]
    bytes: Annotated[int, "Bytes of its arrays, each time."]
    seconds: Annotated[float, "How long one took to make: the median."]
    slowest: Annotated[float, "The longest, in seconds.", OMIT] = 0.0
    why: Annotated[str, "Why it would not leave, where the hospital's policy refuses it.", OMIT] = ""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One metric on this hospital's test patients, of the model trained here alone."""

    noisy: Annotated[Estimate | None, "As the study trains; null where undefined."]
    plain: Annotated[Estimate | None, "The same without noise and clipping; null where the study has none."]
    constant: Annotated[float | None, "Of a prediction that reads nothing of a patient; null where undefined."]
    lower_is_better: Annotated[bool, "Whether less is better."] = False


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What `archipel-site rehearse --json` prints."""

    name: Annotated[str, "The study's name."]
    study: Annotated[str, "The study's digest."]
    train: Annotated[int, "Patients who were trained on."]
    test: Annotated[int, "Patients who were kept aside."]
    rounds: Annotated[int, "Rounds that were trained; 0 of a study that trains nothing."]
    memory_mb: Annotated[float, "Most memory of the process, in MB of 10^6 bytes."]
    leaving: Annotated[tuple[Leaving, ...], "What would leave."]
    answer_s: Annotated[float, "Seconds of which the time of each answer would be a multiple."] = 0.0
    metrics: Annotated[Mapping[str, Compared], "Metric: what it is with and without noise; the headline first."]
    oddities: Annotated[tuple[str, ...], "What was odd about the rows.", OMIT] = ()
    obstacle: Annotated[str, "Why the study cannot run here even if approved.", OMIT] = ""
    spent: Annotated[float, "Epsilon that other studies have spent of the data set, at the site's delta."] = 0.0
    after: Annotated[float, "Epsilon that would be spent once this study is over; 0 where it has no budget."] = 0.0
    max_epsilon: Annotated[float, "What the site's policy allows."] = 0.0

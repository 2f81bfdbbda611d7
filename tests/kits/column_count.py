"""A toy release: a noisy count of the patients with one value of one column, asked for once after the training.

Both halves, the keys that a study gives and the forms of its messages stand here. Not part of the product.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np

from configs.errors import WireError
from configs.keys.declare import key
from configs.keys.values import COLUMN, Number, Text
from configs.records.estimate import Estimate
from configs.records.fields import LATER
from configs.schema import Study
from configs.schema.releases import ReleaseKeys
from configs.wire import STUDY_FIELDS, ArraySpec, Form
from strategies.releases.base import Arrays, Each, Hospital, Judge, Making, People, Request, Sent
from strategies.releases.further import FurtherRelease, given_keys, keys_of
from strategies.releases.noisy_counts import FAR, cell_variance, noised
from strategies.releases.registry import register

if TYPE_CHECKING:  # PyTorch, which the commands of people do not need
    from strategies.privacy.randomness import Randomness

NAME, FORM, ARRAY = "column count", "column_count", "count"


@dataclass(frozen=True)
class Keys:
    """What a study says of it."""

    epsilon: float = key(Number("an epsilon from 0.01 to 10", 0.01, 10.0), "what it costs per patient")
    column: str = key(COLUMN, "a category among the features")
    value: str = key(Text(), "the value that is counted, not the first of the column's")


@dataclass(frozen=True)
class Counted:
    """How many patients have the value, as hospitals released it."""

    together: Annotated[Estimate, "All of them, with the 95 % interval of the noise."]
    sites: Annotated[Mapping[str, float], "Hospital: its count.", LATER]


class ColumnCount(FurtherRelease):
    """How many patients have a value of a column, by the first row of each, with Gaussian noise."""

    name: ClassVar[str] = NAME
    what: ClassVar[str] = "noisy count of patients with one value"
    message_type: ClassVar[str] = f"query.{FORM}"

    def arrays(self, study: Study) -> Mapping[str, ArraySpec]:
        """Return one number."""
        return {ARRAY: ((1,), "float32")} if keys_of(study, Keys) else {}

    def make(self, hospital: Hospital, people: People, _request: Request, randomness: "Randomness") -> Making:
        """Count the patients who train, and add the noise: those kept aside are given to no such kind."""
        yield from ()  # nothing is fitted
        keys = given_keys(hospital.study, Keys)
        place = hospital.study.inputs.index(f"{keys.column} = {keys.value}")
        exact = float((people.train.x[people.train.starts[:-1], place] > 0.5).sum())
        return {ARRAY: noised(np.array([exact]), self.own_multiplier(hospital), randomness)}

    def judge(self, study: Study, _shared: Arrays, _sent: Sent) -> Judge:
        """Return what refuses a count that noise and announced patients cannot explain."""

        def check(site: str, arrays: Arrays) -> None:
            (count,) = arrays[ARRAY].tolist()
            slack = FAR * cell_variance(self.noise_multiplier(study, site)) ** 0.5 + 1
            if count != round(count) or not -slack <= count <= (study.announced_patients(site) or 1e9) + slack:
                raise WireError("column_count reply: expected a count that the noise can explain, found another")

        return Each(check)

    def combine(self, study: Study, released: Mapping[str, Arrays], _shared: Arrays) -> Counted:
        """Return each count and their sum."""
        counts = {site: float(arrays[ARRAY][0]) for site, arrays in sorted(released.items())}
        margin = 1.96 * sum(cell_variance(self.noise_multiplier(study, site)) for site in counts) ** 0.5
        total = sum(counts.values())
        return Counted(Estimate(total, total - margin, total + margin), counts)

    def sentence(self, study: Study) -> str:
        """Return what leaves."""
        keys = given_keys(study, Keys)
        return f"once, after the last round, how many patients have {keys.column} {keys.value}, with noise"


COLUMN_COUNT = ColumnCount()


def install() -> None:
    """Register the kind, its keys, its record and its forms."""
    instruction = Form(STUDY_FIELDS, arrays="", purpose="the coordinator asks for the count of one value, once")
    reply = Form((), arrays="count", purpose="patients with one value of one column, with noise")
    register(COLUMN_COUNT, ReleaseKeys(NAME, Keys, Counted), instruction, reply)

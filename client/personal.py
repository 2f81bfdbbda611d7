"""The arrays of a study's model that a hospital keeps to itself, as they were after each round.

They are trained in the very steps whose noised sums the other arrays are made of, and never leave. Each round's lie in
`DIGEST/ROUND.safetensors` under the hospital's folder `personal`, whole or not at all, readable by its owner alone. A
round begins from the newest ones of a round before it, so a round that is repeated begins where it began the first
time; without any, it begins from the study's public start, and the log says so.

A study without such arrays keeps nothing.
"""

import logging
from functools import cached_property
from pathlib import Path

import numpy as np

from client.kept_models import read_model
from configs.errors import RunError
from configs.files import write_atomically
from configs.schema import Study
from configs.shown import DIGITS
from configs.wire import ArraySpec
from strategies.exchange.arrays import Arrays
from strategies.exchange.tensors import as_bytes
from strategies.learning import learning_of
from strategies.models.registry import personal_parameters

log = logging.getLogger("archipel.client")


class Personal:
    """One hospital's own arrays of one study; without a folder they end with the process."""

    def __init__(self, study: Study, site: str, folder: Path | None = None, *, durable: bool = True) -> None:
        self._study, self._site, self._durable = study, site, durable
        self._folder = None if folder is None else folder / study.sha256
        self._specs: dict[str, ArraySpec] = dict(personal_parameters(study))
        self._held: dict[int, Arrays] = {}

    def before(self, number: int) -> Arrays:
        """Return the arrays that a round begins from."""
        if not self._specs:
            return {}
        for earlier in sorted((kept for kept in self._rounds if kept < number), reverse=True):
            if (arrays := self._read(earlier)) is not None:
                return arrays
        if number > 1 and self._study.trains_at(self._site):
            log.warning(
                "%s: study %s, round %d: no arrays of its own (%s) are kept from an earlier round; they begin from the "
                "study's start",
                *(self._site, self._study.sha256[:DIGITS], number, ", ".join(self._specs)),
            )
        return {name: array.copy() for name, array in self._start.items()}

    def keep(self, number: int, arrays: Arrays) -> None:
        """Keep the arrays as they are after a round, in the place of those of an earlier attempt at it.

        Raises:
            OSError: the disk is full; what was there before stays.
        """
        if not self._specs:
            return
        if self._folder is None:
            self._held[number] = arrays
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self._path(number), as_bytes(arrays), durable=self._durable, private=True)

    def final(self) -> Arrays:
        """Return the arrays that go with the study's last model: the mean over the rounds that it is the mean of."""
        planned = self._study.training.rounds
        if not self._specs:
            return {}
        if self._study.training.average_last == 0:
            return self.before(planned + 1)
        last = [self.before(number + 1) for number in range(planned - self._study.averaged_rounds + 1, planned + 1)]
        return {
            name: np.mean([arrays[name] for arrays in last], axis=0, dtype=np.float64).astype("f4") for name in last[0]
        }

    @property
    def _rounds(self) -> list[int]:
        if self._folder is None:
            return list(self._held)
        return [int(path.stem) for path in self._folder.glob("*.safetensors") if path.stem.isdecimal()]

    def _read(self, number: int) -> Arrays | None:
        """Return what is kept of a round, None where it cannot be read or is no such arrays."""
        if self._folder is None:
            return {name: array.copy() for name, array in self._held[number].items()}
        path = self._path(number)
        try:
            return read_model(path.read_bytes(), self._specs, str(path))
        except (OSError, RunError) as error:
            log.warning("%s: left aside: %s", self._site, error)
            return None

    def _path(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{number}.safetensors"

    @cached_property
    def _start(self) -> Arrays:
        initial = learning_of(self._study).initial(self._study.seed)
        return {name: initial[name] for name in self._specs}

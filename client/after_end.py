"""What a hospital goes on to do with a study's last model, on its own patients, once the study is over.

A kind of step says which studies ask for it and makes arrays of the hospital and the model; the worker keeps them in
`personal/DIGEST/after-ROUND.safetensors`, whole or not at all, and nothing of them leaves. A step without an entry here
is never asked for.

>>> STEPS.names
('personalise',)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from client.kept_models import kept, model_of, read_model
from client.personalise import Ditto
from configs.files import write_atomically
from configs.kinds import Registry
from configs.schema import Study
from configs.site import SiteConfig

if TYPE_CHECKING:  # PyTorch, which the node does not need
    from client.site import Site
    from strategies.exchange.arrays import Arrays

FORM = "after end"  # of the node's own request to the worker: no message that arrives can have it


class Step(Protocol):
    """One kind of step after the end."""

    name: str

    def is_asked(self, study: Study) -> bool:
        """Return whether a study asks for it."""

    def make(self, site: "Site", model: "Arrays") -> "Arrays":
        """Return what is kept at the hospital, made of its patients and the study's last model."""


STEPS: Registry[Step] = Registry("step after the end", ("is_asked", "make"), (Ditto(),))


def asked_of(study: Study) -> list[Step]:
    """Return the steps that a study asks for."""
    return [step for step in STEPS if step.is_asked(study)]


def personal_path(config: SiteConfig, sha256: str, number: int) -> Path:
    """Return where the worker keeps what it made of the model after a round."""
    return config.personal / sha256 / f"after-{number}.safetensors"


def own_model(config: SiteConfig, study: Study, number: int) -> "Arrays":
    """Return the model that was made here of a study's last one, empty where the study asks for none or none is kept.

    Raises:
        RunError: the file does not hold such a model.
    """
    from strategies.models.registry import study_parameters

    path = personal_path(config, study.sha256, number)
    if study.training.personalise is None or not path.is_file():
        return {}
    return read_model(path.read_bytes(), study_parameters(study), str(path))


def forget(config: SiteConfig, sha256: str) -> None:
    """Remove what was made of a study's earlier model: another one has come, and a folder holds one of them at most."""
    for path in (config.personal / sha256).glob("after-*.safetensors"):
        path.unlink(missing_ok=True)


def make(config: SiteConfig, site: "Site") -> None:
    """Make and keep what a study asks for after its end; what was kept before stays as it is.

    Raises:
        RunError: no model of the study was kept. OSError: the disk is full; nothing is kept.
    """
    from strategies.exchange.tensors import as_bytes  # Flower starts threads, which the worker must not have before

    model, end = model_of(config, site.study), kept(config, site.study.sha256)
    assert end is not None
    path = personal_path(config, site.study.sha256, end.rounds)
    if path.exists():
        return
    arrays = {name: array for step in asked_of(site.study) for name, array in step.make(site, model).items()}
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, as_bytes(arrays), private=True)

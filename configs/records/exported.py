"""model.json of an export: what a model file is, which raw columns it reads, and how they become inputs.

The same stands in the file itself, so that it can be asked of whatever file is at hand.
"""

from dataclasses import dataclass
from typing import Annotated

from configs.records.fields import OMIT


@dataclass(frozen=True, kw_only=True)
class ExportedColumn:
    """A raw column."""

    name: Annotated[str, "Its name."]
    type: Annotated[str, "number or category."]
    unit: Annotated[str, "A number's unit.", OMIT] = ""
    range: Annotated[tuple[float, ...], "A number's public range: values beyond are moved to its edge.", OMIT] = ()
    values: Annotated[tuple[str, ...], "A category's words; any other word is unknown.", OMIT] = ()
    missing: Annotated[tuple[str, ...], "Codes that stand for unknown.", OMIT] = ()
    knots: Annotated[tuple[float, ...], "Where a number's effect may bend.", OMIT] = ()
    inputs: Annotated[tuple[str, ...], "The model's inputs that it becomes, in order."]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """model.json of an export."""

    file: Annotated[str, "The model's file beside this one."]
    format: Annotated[str, "onnx or safetensors."]
    sha256: Annotated[str, "Digest of the model's file; absent in the file itself.", OMIT] = ""
    study: Annotated[str, "The study's name."]
    study_sha256: Annotated[str, "Digest of the study's canonical form."]
    purpose: Annotated[str, "The study's purpose."]
    task: Annotated[str, "The type of task."]
    model: Annotated[str, "The kind of model."]
    features: Annotated[tuple[ExportedColumn, ...], "Raw columns, in the order of the model's inputs."]
    inputs: Annotated[tuple[str, ...], "All inputs of the model, in order."]
    personal: Annotated[
        tuple[str, ...], "Arrays that every hospital keeps to itself; here they are the study's start.", OMIT
    ] = ()
    scaling: Annotated[str, "How numbers become inputs: by public ranges, or at each hospital by its own patients."]
    prediction: Annotated[tuple[str, ...], "What each column of a prediction says."]
    outcome: Annotated[str, "How the run ended: COMPLETE or INCOMPLETE."]
    why: Annotated[str, "Why it ended early; absent where it is complete.", OMIT] = ""
    rounds: Annotated[int, "Rounds that were done."]
    rounds_planned: Annotated[int, "Rounds that the study asks for."]
    mark: Annotated[str, "A warning that goes with the file; absent where there is none.", OMIT] = ""
    privacy: Annotated[str, "What protects the patients, in words."]
    model_sha256: Annotated[str, "Digest of the run's model.safetensors."]
    archipel: Annotated[str, "The release of Archipel that exported it."]

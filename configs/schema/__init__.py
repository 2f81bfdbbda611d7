"""The schema of a study: frozen dataclasses, one file for each section.

Their fields say what may stand in a study file.
"""

from configs.federated import Strategy
from configs.schema.evaluation import Evaluation, EvaluationRelease
from configs.schema.model import MODELS, Model
from configs.schema.networks import GRU, Conv1d, ResNet, UNet
from configs.schema.omop import OmopCohort
from configs.schema.privacy import PER_PATIENT, Privacy
from configs.schema.records import Image, Record, Series
from configs.schema.segmentation import Segmentation
from configs.schema.source import CsvFile, DataSource, SqlQuery
from configs.schema.study import ID_STEPS, CohortMember, Study, canonical_json
from configs.schema.survival import Counts, Survival
from configs.schema.task import Feature, Task
from configs.schema.training import Local, Training

__all__ = [
    "GRU",
    "ID_STEPS",
    "MODELS",
    "PER_PATIENT",
    "CohortMember",
    "Conv1d",
    "Counts",
    "CsvFile",
    "DataSource",
    "Evaluation",
    "EvaluationRelease",
    "Feature",
    "Image",
    "Local",
    "Model",
    "OmopCohort",
    "Privacy",
    "Record",
    "ResNet",
    "Segmentation",
    "Series",
    "SqlQuery",
    "Strategy",
    "Study",
    "Survival",
    "Task",
    "Training",
    "UNet",
    "canonical_json",
]

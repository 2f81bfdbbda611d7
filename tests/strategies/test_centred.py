"""What is told of columns is the same whether inputs are centred or not: ratios, groups, counts, a frame."""

import numpy as np

from client.patients import Split
from configs.records.subgroups import SubgroupsKeys
from simulations.described import described
from strategies.data.source import Table
from strategies.data.table import TABLE as TABLE_OF_NOBODY
from strategies.data.table import encoded
from strategies.effects import effects
from strategies.releases.information import frame_of
from strategies.releases.subgroups import groups_of
from tests import builders

FEATURES = {
    "age": {"type": "number", "range": [20, 90], "missing": [0]},
    "sex": {"type": "category", "values": ["female", "male"]},
    "pain": {"type": "category", "values": ["none", "some", "much"], "missing": [9]},
}
PUBLIC, CENTRED = builders.study(features=FEATURES), builders.study(features=FEATURES, scaling="centred")


def test_centred_inputs_leave_each_ratio_as_it_is() -> None:
    weights = np.arange(1.0, 7.0)[None] / 10
    model = {"0.weight": weights, "0.bias": np.zeros(1)}
    told = effects(CENTRED, model)
    assert told is not None
    assert told == effects(PUBLIC, model)


TABLE = Table(
    {"age": np.array([20.0, np.nan, 90.0, 50.0])},
    {"pain": np.array([0, 2, -1, 1]), "sex": np.array([0, 1, 1, 0])},
    {"disease": np.array([0.0, 1.0, 0.0, 1.0])},
    np.arange(4),
    tuple("0123"),
)


def test_the_frame_of_an_inference_is_about_the_same_centre() -> None:
    public, centred = (encoded(TABLE, study).x - frame_of(study).centre for study in (PUBLIC, CENTRED))
    np.testing.assert_allclose(centred, public, atol=1e-6)


def test_patients_are_in_the_same_groups() -> None:
    keys = SubgroupsKeys(epsilon=1.0, by=("age", "pain", "sex"))
    for study in (PUBLIC, CENTRED):
        age, pain, sex = (group.of(encoded(TABLE, study).x).tolist() for group in groups_of(study, keys))
        assert (age[1], pain, sex) == (2, [0, 2, 3, 1], [0, 1, 1, 0])


def test_a_simulations_table_of_patients_is_the_same() -> None:
    public, centred = (
        described(study, {"lille": Split(encoded(TABLE, study), TABLE_OF_NOBODY.nobody(study), {})})
        for study in (PUBLIC, CENTRED)
    )
    assert public == centred

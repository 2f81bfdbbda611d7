"""What a model reads of a table: public ranges alone decide it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from configs.errors import DataError
from configs.schema import Feature, Task
from strategies.data.base import concatenate
from strategies.data.source import Table
from strategies.data.table import TABLE, TablePatients, encode, order_of, ordered_rows, standardise
from strategies.tasks.registry import objective
from tests import builders

AGE = Feature("age", "number", minimum=20.0, maximum=90.0)
CHOL = Feature("chol", "number", minimum=100.0, maximum=400.0, missing=("0",))
PAIN = Feature("pain", "category", values=("none", "mild", "severe"))
SMOKES = Feature("smokes", "category", values=("no", "yes"), missing=("unknown",))
BINARY = objective(Task("binary", "disease"))
PRESSURE = objective(Task("regression", "pressure", minimum=80.0, maximum=200.0))


def table(
    numbers: dict[str, list[float]] | None = None,
    categories: dict[str, list[int]] | None = None,
    target: list[float] | None = None,
    patients: list[int] | None = None,
) -> Table:
    columns = {name: np.array(values, float) for name, values in (numbers or {}).items()}
    codes = {name: np.array(values, np.int64) for name, values in (categories or {}).items()}
    rows = len(next(iter([*columns.values(), *codes.values()])))
    who = np.array(patients if patients is not None else range(rows), np.int64)
    keys = tuple(str(i) for i in range(int(who.max()) + 1))
    outcome = np.array(target if target is not None else [0.0] * rows)
    return Table(columns, codes, {"disease": outcome, "pressure": outcome}, who, keys)


def test_the_ends_and_the_middle_of_a_range_become_minus_one_zero_and_one() -> None:
    assert encode(table({"age": [20, 55, 90]}), (AGE,), BINARY).x.ravel().tolist() == [-1.0, 0.0, 1.0]


def test_a_value_outside_its_range_is_clipped_and_counted() -> None:
    encoded = encode(table({"age": [19.9, 20, 90, 90.1, 1e9]}), (AGE,), BINARY)
    assert encoded.x.ravel().tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0]
    assert encoded.clipped == {"age": 3}


def test_nothing_is_counted_where_nothing_was_clipped() -> None:
    assert encode(table({"age": [20, 90]}), (AGE,), BINARY).clipped == {}


def test_an_unknown_number_is_the_middle_of_its_range_and_says_so() -> None:
    encoded = encode(table({"chol": [100, np.nan, 400]}), (CHOL,), BINARY)
    assert encoded.x.tolist() == [[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    assert encoded.clipped == {}


def test_a_category_has_one_input_a_value_but_the_first() -> None:
    assert encode(table(categories={"pain": [0, 1, 2]}), (PAIN,), BINARY).x.tolist() == [[0, 0], [1, 0], [0, 1]]


def test_an_unknown_category_is_none_of_the_values_and_says_so() -> None:
    assert encode(table(categories={"smokes": [0, 1, -1]}), (SMOKES,), BINARY).x.tolist() == [[0, 0], [1, 0], [0, 1]]


def test_a_centred_category_is_about_the_mean_of_equally_frequent_values() -> None:
    rows = encode(table(categories={"pain": [0, 1, 2]}), (PAIN,), BINARY, centred=True).x
    assert rows.sum(axis=0) == pytest.approx([0.0, 0.0], abs=1e-6)
    assert rows[1] - rows[0] == pytest.approx([1.0, 0.0])


def test_centring_moves_each_input_by_a_public_number_so_that_slopes_keep_their_meaning() -> None:
    codes = table(categories={"smokes": [0, 1, -1]})
    moved = encode(codes, (SMOKES,), BINARY, centred=True).x - encode(codes, (SMOKES,), BINARY).x
    assert moved.tolist() == [[-0.5, 0]] * 3


def test_inputs_are_in_the_order_of_the_features_and_as_many_as_the_schema_names() -> None:
    features = (PAIN, CHOL, SMOKES, AGE)
    made = table({"age": [90], "chol": [400]}, {"pain": [2], "smokes": [1]})
    assert encode(made, features, BINARY).x.tolist() == [[0, 1, 1, 0, 1, 0, 1]]
    assert sum(len(feature.inputs) for feature in features) == 7


@given(st.lists(st.floats(80, 200), min_size=1, max_size=20))
def test_a_regressions_target_is_scaled_and_comes_back_in_its_unit(values: list[float]) -> None:
    encoded = encode(table({"age": [50.0] * len(values)}, target=values), (AGE,), PRESSURE)
    assert np.abs(encoded.y).max() <= 1.0
    back = PRESSURE.in_unit(encoded.y)
    np.testing.assert_allclose(back, values, rtol=1e-5)


def test_a_regressions_target_outside_its_range_is_clipped_and_counted() -> None:
    encoded = encode(table({"age": [50, 50]}, target=[79, 200]), (AGE,), PRESSURE)
    assert encoded.y.tolist() == [-1.0, 1.0]
    assert encoded.clipped == {"pressure": 1}


@given(st.lists(st.floats(0, 120), min_size=2, max_size=20), st.integers(0, 19))
def test_a_patients_inputs_do_not_depend_on_the_other_patients(ages: list[float], position: int) -> None:
    position %= len(ages)
    among = encode(table({"age": ages}), (AGE,), BINARY).x[position]
    alone = encode(table({"age": [ages[position]]}), (AGE,), BINARY).x[0]
    assert among.tobytes() == alone.tobytes()


def test_rows_are_sorted_by_patient_and_keep_their_order_within() -> None:
    encoded = encode(table({"age": [20, 90, 55, 20]}, patients=[1, 0, 1, 0]), (AGE,), BINARY)
    assert encoded.x.ravel().tolist() == [1.0, -1.0, -1.0, 0.0]
    assert (encoded.patients.tolist(), encoded.starts.tolist(), encoded.count) == ([0, 0, 1, 1], [0, 2, 4], 2)


def test_the_target_moves_with_its_row() -> None:
    encoded = encode(table({"age": [20, 90, 55]}, target=[0, 1, 0], patients=[2, 0, 1]), (AGE,), BINARY)
    assert encoded.y.tolist() == [1.0, 0.0, 0.0]


def test_a_patient_without_a_row_is_refused() -> None:
    odd = replace(table({"age": [20, 90]}, patients=[0, 0]), keys=("0", "1"))
    with pytest.raises(DataError, match="a patient without"):
        encode(odd, (AGE,), BINARY)


lengths = st.lists(st.integers(1, 4), min_size=1, max_size=8)


def made_of(rows_each: list[int]) -> TablePatients:
    who = [p for p, n in enumerate(rows_each) for _ in range(n)]
    ages = np.linspace(20, 90, len(who)).tolist()
    return encode(table({"age": ages}, target=[p % 2 for p in who], patients=who), (AGE,), BINARY)


@given(lengths, st.data())
def test_a_subset_holds_every_row_of_the_chosen_patients_and_no_other(
    rows_each: list[int], data: st.DataObject
) -> None:
    everybody = made_of(rows_each)
    chosen = np.array(data.draw(st.lists(st.sampled_from(range(len(rows_each))), unique=True)), np.int64)
    part = everybody.subset(chosen)
    expected = [everybody.x[everybody.patients == p].ravel().tolist() for p in chosen]
    assert [part.x[part.starts[i] : part.starts[i + 1]].ravel().tolist() for i in range(part.count)] == expected
    assert part.count == len(chosen)
    assert part.patients.tolist() == [i for i, p in enumerate(chosen) for _ in range(rows_each[p])]
    assert len(part.x) == len(part.y) == len(everybody.rows_of(chosen))


@given(lengths, lengths)
def test_hospitals_put_together_keep_their_patients_apart(here: list[int], there: list[int]) -> None:
    a, b = made_of(here), made_of(there)
    both = concatenate([a, b])
    assert both.count == a.count + b.count
    assert both.patients.tolist() == [*a.patients, *(b.patients + a.count)]
    assert same_rows(both.subset(np.arange(a.count)), a)
    assert same_rows(both.subset(np.arange(a.count, both.count)), b)


def same_rows(part: TablePatients, whole: TablePatients) -> bool:
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (part.x, whole.x),
        (part.y, whole.y),
        (part.patients, whole.patients),
        (part.starts, whole.starts),
    ]
    return all(np.array_equal(x, y) for x, y in pairs)


def test_standardising_takes_its_statistics_from_the_training_rows_alone() -> None:
    encoded = encode(table({"age": [20, 55, 90, 20, 25]}), (AGE,), BINARY)
    scaled = standardise(encoded, np.array([0, 1, 2]))
    np.testing.assert_allclose(scaled.x[:3].ravel(), [-1.0, 0.0, 1.0], atol=1e-6)
    other = encode(table({"age": [20, 55, 90, 70, 90]}), (AGE,), BINARY)
    np.testing.assert_array_equal(standardise(other, np.array([0, 1, 2])).x[:3], scaled.x[:3])


KEYS = st.text(st.sampled_from("ab0\x00é~ "), max_size=12)


@settings(max_examples=80, deadline=None)
@given(st.lists(KEYS | st.text("AB01", max_size=70), max_size=12))
def test_keys_are_ordered_as_python_orders_texts(keys: list[str]) -> None:
    assert order_of(keys).tolist() == sorted(range(len(keys)), key=keys.__getitem__)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 40))
def test_the_rows_of_each_patient_are_in_the_order_of_all_they_hold(seed: int, columns: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.choice([0.0, -0.0, 1.0, 2.0], (rows, columns)).astype(np.float32)
    y = rng.integers(0, 2, rows).astype(np.float32)
    patients = np.sort(rng.integers(0, 4, rows))
    _, patients = np.unique(patients, return_inverse=True)
    starts = np.searchsorted(patients, np.arange(patients[-1] + 2))
    full = np.lexsort((y, *x.T[::-1], patients))
    ordered = ordered_rows(TablePatients(x.copy(), y.copy(), patients, starts))
    assert ordered.x.tobytes() == x[full].tobytes()
    assert ordered.y.tobytes() == y[full].tobytes()


def test_two_sides_are_the_same_patients_as_one_reading_and_two_choices() -> None:
    rng, keys = np.random.default_rng(1), ("c", "a", "d", "b")
    patients = np.array([0, 1, 1, 2, 3, 0])
    numbers = {"age": rng.uniform(10, 100, 6)}
    table = Table(numbers, {"sex": rng.integers(-1, 2, 6)}, {"disease": np.array([0.0, 1, 1, 0, 1, 0])}, patients, keys)
    first = np.array([True, False, True, False])
    of = builders.plain()
    everybody, order = TABLE.read(table, of)
    train, test, clipped = TABLE.sides(table, of, first, ~first)
    assert train.digest == everybody.subset(np.flatnonzero(first[order])).digest
    assert test.digest == everybody.subset(np.flatnonzero(~first[order])).digest
    assert clipped == everybody.clipped
    assert train.patients.tolist() == everybody.subset(np.flatnonzero(first[order])).patients.tolist()

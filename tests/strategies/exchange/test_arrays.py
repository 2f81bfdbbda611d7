"""The arrays' codec: byte for byte Flower's own, and nothing that merely looks like it."""

import io

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from configs.errors import WireError
from configs.frame import WINDOW_BYTES
from strategies.exchange.arrays import from_record, payload_bytes, reads_as_text, to_record

finite = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    elements=st.floats(allow_nan=False, allow_infinity=False, width=32),
)


def spec_of(array: np.ndarray) -> tuple[tuple[int, ...], str]:
    return array.shape, "float32"


def read_one(
    data: bytes, *, shape: tuple[int, ...] = (2,), dtype: str = "float32", stype: str = "numpy.ndarray"
) -> np.ndarray:
    """What comes of an array that says these things of itself, where two float32 are expected."""
    record = ArrayRecord({"bias": Array(dtype, shape, stype, data)})
    return from_record(record, {"bias": ((2,), "float32")})["bias"]


def npy(array: np.ndarray, *, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


HONEST = npy(np.array([1.0, 2.0], np.float32))


@given(finite)
@example(np.array(-0.0, np.float32))
@example(np.array([1e-45, 3.4028235e38], np.float32))
def test_an_array_comes_back_bit_for_bit(array: np.ndarray) -> None:
    back = from_record(to_record({"w": array}), {"w": spec_of(array)})["w"]
    assert (back.shape, back.dtype.name, back.tobytes()) == (array.shape, "float32", array.tobytes())


@given(finite)
def test_what_is_written_is_what_flower_writes(array: np.ndarray) -> None:
    ours, theirs = to_record({"w": array})["w"], Array(np.ascontiguousarray(array).reshape(array.shape))
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (theirs.dtype, theirs.shape, theirs.stype, theirs.data)


@given(finite)
def test_flower_reads_what_is_written(array: np.ndarray) -> None:
    assert to_record({"w": array})["w"].numpy().tobytes() == array.tobytes()


@given(finite)
def test_an_array_is_what_flowers_constructor_makes_of_the_same_fields(array: np.ndarray) -> None:
    ours = to_record({"w": array})["w"]
    theirs = Array(ours.dtype, ours.shape, ours.stype, ours.data)
    assert ours == theirs
    assert ours.is_dirty is theirs.is_dirty
    assert ours.object_id == theirs.object_id
    ours.data = theirs.data + b"more"
    assert ours.object_id != theirs.object_id


@given(finite)
def test_what_flower_writes_is_read(array: np.ndarray) -> None:
    record = ArrayRecord({"w": Array(np.ascontiguousarray(array).reshape(array.shape))})
    assert from_record(record, {"w": spec_of(array)})["w"].tobytes() == array.tobytes()


def test_a_large_array_is_looked_at_again_when_its_bytes_are_others() -> None:
    specs = {"w": ((300_000,), "float32")}
    record = to_record({"w": np.zeros(300_000, np.float32)})
    assert isinstance(record["w"].data, memoryview)
    from_record(record, specs)
    from_record(record, specs)
    spoilt = bytearray(record["w"].data)
    spoilt[-4:] = np.float32(np.nan).tobytes()
    for data in (bytes(spoilt), memoryview(spoilt).toreadonly(), memoryview(spoilt)):
        record["w"].data = data
        with pytest.raises(WireError, match="finite"):
            from_record(record, specs)


def test_what_can_be_written_to_is_looked_at_each_time() -> None:
    specs, held = {"w": ((40_000,), "float32")}, bytearray(to_record({"w": np.zeros(40_000, np.float32)})["w"].data)
    record = to_record({"w": np.zeros(40_000, np.float32)})
    record["w"].data = memoryview(held)  # type: ignore[assignment]
    from_record(record, specs)
    held[-4:] = np.float32(np.inf).tobytes()
    with pytest.raises(WireError, match="finite"):
        from_record(record, specs)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,
        np.arange(8, dtype=np.float32)[::2],
        np.ones(3, ">f4"),
        np.ones(3),
    ],
    ids=["transposed", "strided", "big-endian", "float64"],
)
def test_any_array_is_sent_as_plain_float32(array: np.ndarray) -> None:
    back = from_record(to_record({"w": array}), {"w": spec_of(array)})["w"]
    np.testing.assert_array_equal(back, array.astype(np.float32))


def test_the_honest_bytes_are_read() -> None:
    assert read_one(HONEST).tolist() == [1.0, 2.0]


def test_an_array_cannot_be_changed_in_place_after_reading() -> None:
    with pytest.raises(ValueError, match="read-only"):
        read_one(HONEST)[0] = 5.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["not a number", "infinite", "minus infinite"])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(WireError, match="expected finite values"):
        read_one(npy(np.array([1.0, value], np.float32)))


@pytest.mark.parametrize(
    "claim",
    [
        {"shape": (3,)},
        {"shape": (2, 1)},
        {"shape": (10**12,)},
        {"shape": (-2,)},
        {"shape": ()},
        {"dtype": "float64"},
        {"dtype": "object"},
        {"dtype": "<f4"},
        {"stype": "torch.tensor"},
        {"stype": "pickle"},
    ],
    ids=str,
)
def test_an_array_that_claims_to_be_another_is_refused(claim: dict[str, object]) -> None:
    with pytest.raises(WireError, match="array 'bias'"):
        read_one(HONEST, **claim)  # type: ignore[arg-type]


HOSTILE = {
    "nothing": b"",
    "header alone": HONEST[:-8],
    "one byte short": HONEST[:-1],
    "one byte more": HONEST + b"\0",
    "twice": HONEST * 2,
    "without its magic": b"\0" + HONEST[1:],
    "of another version": HONEST[:6] + b"\x02" + HONEST[7:],
    "float64 inside": npy(np.array([1.0, 2.0])),
    "big-endian inside": npy(np.array([1.0, 2.0], ">f4")),
    "another shape inside": npy(np.ones((2, 1), np.float32)),
    "three inside": npy(np.ones(3, np.float32)),
    "a pickled object": npy(np.array([{"a": 1}, 2], object), pickled=True),
    "a huge shape inside": HONEST.replace(b"(2,), }", b"(999999999999,), }"),
    "a header of a gigabyte": HONEST[:8] + b"\xff\xff" + HONEST[10:],
    "code in the header": HONEST.replace(b"'shape': (2,)", b"'shape': f(),"),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_bytes_that_are_not_those_of_the_array_are_refused(data: bytes) -> None:
    with pytest.raises(WireError, match="its bytes are not those"):
        read_one(data)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read_one(data)


@given(st.integers(0, len(HONEST) - 9), st.integers(1, 255))
def test_a_changed_byte_in_the_header_is_refused(position: int, change: int) -> None:
    data = bytearray(HONEST)
    data[position] ^= change
    with pytest.raises(WireError):
        read_one(bytes(data))


@pytest.mark.parametrize("names", [[], ["weight"], ["bias", "weight"], ["bias", "\x1b[31m"]])
def test_a_name_too_many_or_too_few_is_refused(names: list[str]) -> None:
    record = to_record({name: np.zeros(2, np.float32) for name in names})
    with pytest.raises(WireError, match="found a difference at"):
        from_record(record, {"bias": ((2,), "float32")})


def test_arrays_come_in_the_expected_order_not_in_the_senders() -> None:
    record = to_record({"b": np.ones(1, np.float32), "a": np.zeros(1, np.float32)})
    assert list(from_record(record, {"a": ((1,), "float32"), "b": ((1,), "float32")})) == ["a", "b"]


def test_the_payload_is_the_bytes_and_the_names() -> None:
    assert payload_bytes(to_record({"bias": np.zeros(2, np.float32)})) == len(HONEST) + len("bias")


@given(st.lists(finite, min_size=1, max_size=6))
def test_several_arrays_are_read_as_each_alone(arrays: list[np.ndarray]) -> None:
    named = {f"{i}": array for i, array in enumerate(arrays)}
    back = from_record(to_record(named), {name: spec_of(array) for name, array in named.items()})
    for name, array in named.items():
        assert (back[name].shape, back[name].dtype.name, back[name].tobytes()) == (
            array.shape,
            "float32",
            array.tobytes(),
        )


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("more", [1, 20_000], ids=["small", "large"])
@pytest.mark.parametrize("data", [*HOSTILE.values(), npy(np.array([np.nan, 1.0], np.float32))])
def test_one_bad_array_among_good_ones_is_refused_by_name(data: bytes, more: int, place: int) -> None:
    arrays = to_record({"a": np.ones(3, np.float32), "b": np.zeros((more, 1), np.float32)})
    named = [*arrays.items()]
    named.insert(place, ("bad", Array("float32", (2,), "numpy.ndarray", data)))
    specs = {"a": ((3,), "float32"), "bad": ((2,), "float32"), "b": ((more, 1), "float32")}
    with pytest.raises(WireError, match="array 'bad'"):
        from_record(ArrayRecord(dict(named)), specs)


def is_text(four: np.ndarray) -> bool:
    """Value by value: twelve in a row of printable characters, each another than the one before."""
    run, before = 0, None
    for value in four.tolist():
        printable = all(0x20 <= byte <= 0x7E for byte in value.to_bytes(4, "little"))
        run = run + 1 if printable and value != before else 0
        before = value
        if run == 12:
            return True
    return False


TEXT = np.frombuffer(b"Mme Dupont, 73 ans, code postal 59000 Lille, diabetique. Seule. ", "<u4")


@given(
    st.lists(
        st.tuples(st.integers(0, 16), st.integers(0, 40), st.sampled_from(["bytes", "other", "twice"])), max_size=12
    ),
    st.sampled_from([0, 1, 5]),
)
def test_text_is_found_wherever_it_stands_and_nothing_else(parts: list[tuple[int, int, str]], first: int) -> None:
    generator, four = np.random.default_rng(len(parts)), [np.zeros(first, "<u4")]
    for length, gap, kind in parts:
        between = {"bytes": generator.integers(0, 2**32, gap), "other": np.full(gap, 7), "twice": np.full(gap, TEXT[0])}
        four += [TEXT[:length], between[kind]]
    values = np.concatenate(four).astype("<u4")
    data = to_record({"w": values.view("<f4")})["w"].data
    assert reads_as_text(data) == is_text(values)


@pytest.mark.parametrize("length", [11, 12, 16])
@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 1000, *range(WINDOW_BYTES // 4 - 50, WINDOW_BYTES // 4 - 28), 150_000])
def test_text_is_found_across_windows(at: int, length: int) -> None:
    values = np.random.default_rng(0).normal(0, 0.02, 200_000).astype(np.float32).view("<u4").copy()
    values[max(0, at - 1)] = values[at + length] = 7
    values[at : at + length] = TEXT[:length]
    assert reads_as_text(to_record({"w": values.view("<f4")})["w"].data) == (length >= 12)


def test_text_is_found_among_much_that_is_printable() -> None:
    values = np.tile(np.concatenate([TEXT[:11], [7]]).astype("<u4"), 20_000)
    assert not reads_as_text(to_record({"w": values.view("<f4")})["w"].data)
    values[123_000:123_012] = TEXT[:12]
    assert reads_as_text(to_record({"w": values.view("<f4")})["w"].data)

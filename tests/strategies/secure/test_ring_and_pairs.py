"""Masked sums: exact when complete, uniform otherwise, and only among hospitals that read the same bytes."""

import copy
import hashlib
import pickle
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from configs.errors import PrivacyError, WireError
from strategies.secure.pairs import MaskKey, Pairs
from strategies.secure.ring import NOISE_SCALE, PROOF, Opening, encoded, mask, step_size

Words = NDArray[np.uint64]
INSTRUCTION = hashlib.sha256(b"round 1").digest()


def pairs_of(names: Sequence[str], roster: bytes = bytes(32)) -> Mapping[str, Pairs]:
    keys = {name: MaskKey(name) for name in names}
    public = {name: key.public for name, key in keys.items()}
    return {name: Pairs(key, public, roster) for name, key in keys.items()}


def masked(vectors: Mapping[str, NDArray[np.int64]], pairs: Mapping[str, Pairs], **told: bytes) -> dict[str, Words]:
    """Mask each hospital's vector; `told` has the instruction of a hospital that was sent another one."""
    found = {}
    for site, vector in vectors.items():
        words = vector.view(np.uint64).copy()
        mask(words, pairs[site].streams(told.get(site, INSTRUCTION), [other for other in vectors if other != site]))
        found[site] = words
    return found


def opened(vectors: Sequence[Words]) -> Opening:
    opening = Opening(len(vectors[0]) - PROOF)
    for words in vectors:
        opening.add(words)
    return opening


FIVE = ("angers", "brest", "caen", "dijon", "evry")
PAIRS = pairs_of(FIVE)


@settings(max_examples=200)
@given(
    hospitals=st.integers(2, 5),
    parameters=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    order=st.permutations(range(5)),
)
def test_an_opened_sum_is_the_sum_of_whole_numbers(
    hospitals: int, parameters: int, seed: int, order: Sequence[int]
) -> None:
    random = np.random.default_rng(seed)
    vectors = {}
    for site in FIVE[:hospitals]:
        vector = np.zeros(parameters + PROOF, np.int64)
        vector[:parameters] = random.integers(-(2**62) // hospitals, 2**62 // hospitals, parameters)
        vectors[site] = vector
    words = masked(vectors, PAIRS)
    arrived = [words[FIVE[i]] for i in order if i < hospitals]
    assert (opened(arrived).total() == sum(vector[:parameters] for vector in vectors.values())).all()
    with pytest.raises(WireError, match="do not cancel"):
        opened(arrived[1:] if hospitals > 2 else arrived[:1]).total()


def test_without_one_of_them_a_sum_is_uniform() -> None:
    vectors = {site: np.zeros(50_000 + PROOF, np.int64) for site in FIVE}
    words = masked(vectors, PAIRS)
    for missing in FIVE:
        total = sum((vector for site, vector in words.items() if site != missing), np.zeros(50_000 + PROOF, np.uint64))
        assert _looks_uniform(total)


@pytest.mark.parametrize("bit", [0, 100, 255])
def test_a_hospital_that_was_sent_one_other_bit_opens_nothing(bit: int) -> None:
    other = (int.from_bytes(INSTRUCTION, "big") ^ 1 << bit).to_bytes(32, "big")
    vectors = {site: np.zeros(20_000 + PROOF, np.int64) for site in FIVE}
    words = masked(vectors, PAIRS, caen=other)
    assert not opened(list(words.values())).cancels
    # What the honest ones sent stays uniform, whichever of them are added up.
    assert _looks_uniform(sum((words[site] for site in FIVE if site != "caen"), np.zeros(20_000 + PROOF, np.uint64)))


def test_two_instructions_have_independent_masks() -> None:
    vectors = {site: np.zeros(20_000 + PROOF, np.int64) for site in FIVE}
    first, second = (masked(vectors, PAIRS, **dict.fromkeys(FIVE, told)) for told in (bytes(32), bytes(31) + b"\1"))
    for site in FIVE:
        assert _looks_uniform(first[site] - second[site])


def test_another_roster_is_another_secret() -> None:
    keys = {name: MaskKey(name) for name in FIVE}
    public = {name: key.public for name, key in keys.items()}
    one, other = Pairs(keys["caen"], public, bytes(32)), Pairs(keys["dijon"], public, b"\1" * 32)
    assert one.checks["dijon"] != other.checks["caen"]


def _changed(keys: dict[str, bytes], **new: bytes) -> dict[str, bytes]:
    return keys | new


def test_bad_keys_are_refused_and_told_apart() -> None:
    key = MaskKey("caen")
    good = {"caen": key.public, "dijon": MaskKey("dijon").public}
    cases = {
        "low order": _changed(good, dijon=bytes(32)),
        "one": _changed(good, dijon=b"\1" + bytes(31)),
        "short": _changed(good, dijon=b"\1" * 31),
        "twice": _changed(good, dijon=key.public),
        "another's in my place": _changed(good, caen=MaskKey("caen").public),
        "without me": {"dijon": good["dijon"]},
    }
    for keys in cases.values():
        with pytest.raises(WireError):
            Pairs(key, keys, bytes(32))
    with pytest.raises(WireError, match="evry"):
        list(Pairs(key, good, bytes(32)).streams(INSTRUCTION, ["evry"]))


@pytest.mark.parametrize("secret", [MaskKey("caen"), PAIRS["caen"]], ids=["key", "pairs"])
def test_secrets_are_never_copied_or_shown(secret: object) -> None:
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            take(secret)
    assert "0x" not in repr(secret) or "object at" in repr(secret)


def test_a_pair_agrees_with_a_key_of_the_library() -> None:
    """The exchange is X25519 as everybody has it: a key made elsewhere meets ours."""
    ours, theirs = MaskKey("caen"), X25519PrivateKey.generate()
    assert ours.exchange(theirs.public_key().public_bytes_raw()) == theirs.exchange(
        X25519PublicKey.from_public_bytes(ours.public)
    )


@pytest.mark.parametrize(
    ("total", "expected"),
    [(float("nan"), 0), (float("inf"), 0), (float("-inf"), 0), (1e300, 2**62 // 3), (-1e300, -(2**62 // 3)), (0.5, 2)],
)
def test_what_cannot_be_encoded_is_zero_or_the_edge(total: float, expected: int) -> None:
    vector = encoded(np.array([total, 0.25]), 0.25, hospitals=3)
    assert vector[1:].tolist() == [1, 0, 0, 0, 0]
    assert int(vector[0]) == pytest.approx(expected, rel=2**-50)
    assert abs(int(vector[0])) <= 2**62


@given(
    multiplier=st.floats(0.3, 1e3),
    clip=st.floats(1e-3, 1e3),
    parameters=st.integers(1, 50_000_000),
    honest=st.integers(1, 200),
)
def test_the_honest_noise_is_the_multiplier_times_what_a_patient_moves(
    multiplier: float, clip: float, parameters: int, honest: int
) -> None:
    try:
        step = step_size(multiplier=multiplier, clip_norm=clip, parameters=parameters, honest=honest)
    except PrivacyError:
        assert multiplier * parameters**0.5 >= honest**0.5 * 2.0**NOISE_SCALE
        return
    noise = honest**0.5 * 2.0**NOISE_SCALE * step
    moved = clip * (1 + 2.0**-10) + step * parameters**0.5
    assert noise == pytest.approx(multiplier * moved, rel=1e-9)
    assert step * parameters**0.5 < 0.01 * clip * max(1.0, multiplier)


def test_no_hospital_beside_colluders_is_refused() -> None:
    with pytest.raises(PrivacyError, match=r"lower privacy\.colluding"):
        step_size(multiplier=1.0, clip_norm=1.0, parameters=10, honest=0)


@pytest.mark.parametrize(
    "words", [np.zeros(7, np.uint64), np.zeros(6, np.int64), np.zeros((6, 1), np.uint64), np.zeros(6, np.float64)]
)
def test_a_vector_of_another_size_or_type_is_refused(words: NDArray[np.uint64]) -> None:
    with pytest.raises(WireError, match="expected 6 words of uint64"):
        Opening(2).add(words)


def _looks_uniform(words: Words) -> bool:
    """Return whether the bytes of words are uniform, each place in the word by itself."""
    places = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8)
    return all(bool(chisquare(np.bincount(place, minlength=256)).pvalue > 1e-5) for place in places.T)

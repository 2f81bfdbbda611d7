"""The key stream against its standard; nobody else's stream, in no process and in no file."""

import copy
import os
import pickle

import pytest

from strategies.privacy import cipher
from strategies.privacy.cipher import CipherStream
from strategies.privacy.randomness import Randomness

# Key streams of AES-256 from counter 0 on, as McGrew and Viega print them for GCM ("The Galois/counter mode of
# operation", appendix B: H, E(K, Y0) and E(K, Y1) of test case 14, H of test case 15).
ZERO_KEY_BLOCKS = bytes.fromhex(
    "dc95c078a2408989ad48a21492842087530f8afbc74536b9a963b4f1c4cb738bcea7403d4d606b6e074ec5d3baf39d18"
)
KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308")
KEY_BLOCK = bytes.fromhex("acbef20579b4b8ebce889bac8732dad7")


def test_the_stream_is_that_of_the_standard() -> None:
    assert CipherStream(bytes(32)).words(6).tobytes() == ZERO_KEY_BLOCKS
    assert CipherStream(KEY).words(2).tobytes() == KEY_BLOCK


@pytest.mark.parametrize("parts", [[1] * 12, [5, 7], [70_000, 3, 69_997]])
def test_the_stream_does_not_depend_on_how_it_is_drawn(parts: list[int]) -> None:
    stream, whole = CipherStream(bytes(32)), CipherStream(bytes(32)).words(sum(parts)).tobytes()
    assert b"".join(stream.words(n).tobytes() for n in parts) == whole


def in_a_fork(draw: object) -> bytes:
    """What a forked process draws."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, draw())  # type: ignore[operator]
        os._exit(0)
    os.waitpid(child, 0)
    return os.read(reading, 10_000)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_share_the_systems_noise() -> None:
    randomness = Randomness.system()
    randomness.gaussian(7, 1.0)  # some more are made and not yet given

    def draw() -> bytes:
        return bytes(randomness.gaussian(100, 1.0).numpy().tobytes())

    first, second = in_a_fork(draw), in_a_fork(draw)
    assert len({first, second, draw()}) == 3


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_does_not_share_the_systems_sample() -> None:
    randomness = Randomness.system()
    for _ in range(2):
        randomness.poisson(1000, 0.5)  # one more is drawn and not yet given

    def draw() -> bytes:
        return bytes(randomness.poisson(1000, 0.5).astype("<u2").tobytes())

    assert len({in_a_fork(draw), in_a_fork(draw), draw()}) == 3


def test_a_key_is_replaced_before_its_counter_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    unbroken = CipherStream(bytes(32)).words(64).tobytes()
    monkeypatch.setattr(cipher, "_REKEY_BYTES", 256)
    drawn = [[s.words(16).tobytes() for _ in range(4)] for s in (CipherStream(bytes(32)), CipherStream(bytes(32)))]
    assert drawn[0] == drawn[1]  # a seeded stream still repeats
    assert b"".join(drawn[0])[:256] == unbroken[:256]
    long = CipherStream(bytes(32))
    assert (
        b"".join(long.words(16).tobytes() for _ in range(8))[256:] != CipherStream(bytes(32)).words(64).tobytes()[256:]
    )


@pytest.mark.parametrize("save", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
@pytest.mark.parametrize("what", [CipherStream.system, Randomness.system], ids=["stream", "randomness"])
def test_chance_is_never_saved(save: object, what: object) -> None:
    with pytest.raises(TypeError, match="never pickled or copied"):
        save(what())  # type: ignore[operator]


def test_a_log_shows_no_state() -> None:
    assert repr(CipherStream(bytes(32))) == "<CipherStream of a given key>"
    assert all(not isinstance(value, bytes | bytearray) for value in vars(CipherStream.system()).values())

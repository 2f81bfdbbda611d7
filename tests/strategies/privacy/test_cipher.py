"""The key stream against its standard; nobody else's stream, in no process and in no file."""

import copy
import os
import pickle

import pytest

from strategies.privacy import cipher
from strategies.privacy.cipher import CipherStream
from strategies.privacy.randomness import Randomness

# RFC 8439, appendix A.1, test vectors 1, 2 and 3: nonce zero; block 0 and 1 of the zero key, block 1 of key 00..01.
ZERO_KEY_BLOCKS = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
    "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
)
KEY_ONE_BLOCK_ONE = bytes.fromhex(
    "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a"
    "8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0"
)


def test_the_stream_is_that_of_the_standard() -> None:
    assert CipherStream(bytes(32)).words(16).tobytes() == ZERO_KEY_BLOCKS
    assert CipherStream(bytes(31) + b"\x01").words(16).tobytes()[64:] == KEY_ONE_BLOCK_ONE


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

"""What a run's bundle may hold: one study, no code; anything else is refused byte for byte."""

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.bundle import MAX_BUNDLE_BYTES, check_bundle
from configs.errors import WireError
from server.bundle import build_bundle
from tests.builders import study

STUDY = study()
GOOD, DIGEST = build_bundle(STUDY)


def rebuilt(**changes: bytes | None) -> bytes:
    """The good bundle with files changed, added, or (None) left out."""
    with zipfile.ZipFile(io.BytesIO(GOOD)) as good:
        files: dict[str, bytes | None] = {name: good.read(name) for name in good.namelist()}
    files |= {name.replace("__", "."): content for name, content in changes.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, content in files.items():
            if content is not None:
                bundle.writestr(name, content)
    return buffer.getvalue()


def test_the_bundle_of_a_study_passes_and_is_the_same_each_time() -> None:
    check_bundle(GOOD, STUDY)
    assert build_bundle(STUDY) == (GOOD, DIGEST)


def test_a_bundle_holds_the_study_and_no_code() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as bundle:
        assert sorted(bundle.namelist()) == [".info/CONTENT", "LICENSE", "pyproject.toml", "study.json"]
        assert bundle.read("study.json").decode() == STUDY.canonical


@given(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=80))
def test_whatever_a_studys_purpose_says_its_bundle_passes(purpose: str) -> None:
    from configs.errors import ConfigError

    try:
        odd = study(purpose=purpose)
    except ConfigError:
        return
    check_bundle(build_bundle(odd)[0], odd)


@pytest.mark.parametrize(
    "content",
    [
        rebuilt(client__py=b"import os"),
        rebuilt(**{"client/__init__.py": b""}),
        rebuilt(pyproject__toml=b"[project]\nname='x'\n"),
        rebuilt(study__json=b"{}"),
        rebuilt(LICENSE=None),
        rebuilt(study__json=b"0" * (MAX_BUNDLE_BYTES + 1)),
        GOOD[: len(GOOD) // 2],
        b"",
        b"PK\x03\x04 no zip",
        b"0" * (MAX_BUNDLE_BYTES + 1),
        build_bundle(study(seed=1))[0],
    ],
    ids=["code", "package", "project", "study", "missing", "bomb", "cut", "empty", "garbage", "large", "another"],
)
def test_any_other_bundle_is_refused(content: bytes) -> None:
    with pytest.raises(WireError, match="bundle"):
        check_bundle(content, STUDY)


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_never_brings_code_in(position: int, flip: int) -> None:
    changed = bytearray(GOOD)
    changed[position] ^= flip
    try:
        check_bundle(bytes(changed), STUDY)
    except WireError:
        return
    with zipfile.ZipFile(io.BytesIO(bytes(changed))) as bundle:
        assert bundle.read("study.json").decode() == STUDY.canonical
        assert not [name for name in bundle.namelist() if name.endswith(".py")]

"""Normalisation of patients' ids, so that one patient has one id.

A study lists the steps in which ids may be written alike; this file also tells two spellings apart. An id is text. A
study that says nothing takes it as it stands: `012`, `12` and `12.0` are three patients, each with a clip and an
epsilon of its own. `patient_id: {column: ipp, normalise: [nfkc, case, zeros]}` makes them one. The steps that are
listed are taken in this order:

- nfkc: Unicode's compatibility form (full-width digits, composed accents); no invisible characters (marks of order,
  zero width, controls), no white space around, and none of what spreadsheets write around a text: `="..."`, a leading
  apostrophe;
- case: upper and lower case are one (Unicode's case folding);
- zeros: no zeros in front, and of a whole number none behind a point: `0012.0` is `12`. One digit always stays.

>>> [normal(cell, ID_STEPS) for cell in ('="0012"', "12.0", "\\u200b12", "\\uff11\\uff12", "Ab-1", "AB-1", "000")]
['12', '12', '12', '12', 'ab-1', 'ab-1', '0']
>>> normal("0012", ()), normal("0012", ("case",))
('0012', '0012')
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from client.id_hashes import HASH_BYTES
from configs.schema import ID_STEPS

ID_NAMES = frozenset(
    (
        *("id", "ids", "pid", "mrn", "ipp", "nip", "nir", "ins", "iep", "nda", "patient", "patientid", "patient_id"),
        *("id_patient", "idpatient", "id_pat", "num_patient", "numpatient", "no_patient", "numero_patient"),
        *("subject", "subjectid", "subject_id", "id_subject", "usubjid", "person", "personid", "person_id"),
        *("identifiant", "pseudonym", "pseudo"),
    )
)
_WRAPPED = re.compile(r'="(.*)"', re.DOTALL)
_ZEROS = re.compile(r"(?m)^0+(?=.)")
_WHOLE = re.compile(r"([0-9]+)\.0*")


def normal(cell: str, steps: Collection[str]) -> str:
    """Return an id after these steps; empty where nothing is left of it."""
    if "nfkc" in steps:
        text = unicodedata.normalize("NFKC", cell)
        text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc", "Zl", "Zp")).strip()
        wrapped = _WRAPPED.fullmatch(text)
        cell = (wrapped[1] if wrapped else text).strip().lstrip("'")
    if "case" in steps:
        cell = unicodedata.normalize("NFKC", cell.casefold()) if "nfkc" in steps else cell.casefold()
    if "zeros" in steps:
        whole = _WHOLE.fullmatch(cell)
        cell = whole[1] if whole else cell
        cell = cell.lstrip("0") or cell[-1:]
    return cell


def all_normal(cells: Sequence[str], steps: Collection[str]) -> list[str]:
    """Return ids after these steps, as `normal` does each of them: at once where they are visible ASCII.

    >>> all_normal(["0012", "AB-1", "12.0", "'7"], ID_STEPS), all_normal(["00", "A0b"], ID_STEPS)
    (['12', 'ab-1', '12', '7'], ['0', 'a0b'])
    """
    text = "\n".join(cells)
    if not cells or not _is_visible(text, len(cells)) or ("zeros" in steps and "." in text):
        return [normal(cell, steps) for cell in cells]
    if "case" in steps:
        text = text.lower()
    if "zeros" in steps:
        text = _ZEROS.sub("", text)
    return text.split("\n")


def could_be_alike(cells: Sequence[str]) -> bool:
    """Return whether different ids could be one after all steps; False where it is clear at a glance that none could.

    >>> could_be_alike(["P01", "P02"]), could_be_alike(["01", "12"]), could_be_alike(["1", "01"])
    (False, False, True)
    """
    text = "\n".join(cells)
    if not cells or not _is_visible(text, len(cells)) or "." in text:
        return True
    if text.upper() != text and text.lower() != text:
        return True
    starts_with_zero = text.startswith("0") or "\n0" in text  # of one length, those without zeros are as different
    return starts_with_zero and len(set(map(len, cells)) - {0}) > 1


def _is_visible(text: str, count: int) -> bool:
    """Return whether cells, a line each, are visible ASCII, and none is wrapped as spreadsheets wrap a text."""
    if not text.isascii() or text.count("\n") != count - 1:
        return False
    letters = np.frombuffer(text.encode("ascii"), np.uint8)
    if (((letters <= 32) & (letters != 10)) | (letters == 127)).any():
        return False
    return not (text.startswith(("'", "=")) or "\n'" in text or "\n=" in text)


def looks_like_ids(header: Sequence[str]) -> list[str]:
    """Return the columns with usual names of a patient's id."""
    return [name for name in header if re.sub(r"[ .-]", "_", name.strip().casefold()) in ID_NAMES]


def hashed(ids: Iterable[str], key: bytes) -> set[bytes]:
    """Return keyed hashes of the ids, all steps taken: two sets of one key tell their overlap, and no more."""
    return {
        hmac.digest(key, normal(cell, ID_STEPS).encode("utf-8", "replace"), hashlib.sha256)[:HASH_BYTES] for cell in ids
    }

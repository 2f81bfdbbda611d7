"""One patient, one id: the steps in which a study may have ids written alike, and what tells two spellings apart.

An id is text. A study that says nothing takes it as it stands: `012`, `12` and `12.0` are three patients, each with a
clip and an epsilon of its own. `patient_id: {column: ipp, normalise: [nfkc, case, zeros]}` makes them one. The steps
that are listed are taken in this order:

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
import os
import re
import secrets
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

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
_WHOLE = re.compile(r"([0-9]+)\.0*")
_HASH_BYTES = 16


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


def looks_like_ids(header: Sequence[str]) -> list[str]:
    """Return the columns whose names are usual ones of a patient's id."""
    return [name for name in header if re.sub(r"[ .-]", "_", name.strip().casefold()) in ID_NAMES]


def id_key(path: Path) -> bytes:
    """Return this hospital's own key for hashes of ids, made at first use and readable by its owner alone.

    Raises:
        OSError: it can be neither read nor written.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)  # whoever was first has made it
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return path.read_bytes()


def hashed(ids: Iterable[str], key: bytes) -> set[bytes]:
    """Return keyed hashes of the ids, all steps taken: two sets of one key tell their overlap, and no more."""
    return {
        hmac.digest(key, normal(cell, ID_STEPS).encode("utf-8", "replace"), hashlib.sha256)[:_HASH_BYTES]
        for cell in ids
    }


def keep(path: Path, hashes: set[bytes]) -> None:
    """Write the hashes down, for the data sets that are looked at later."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(b"".join(sorted(hashes)))
    part.replace(path)


def kept(path: Path) -> set[bytes]:
    """Return the hashes that were written down; none where there are none."""
    data = path.read_bytes() if path.is_file() else b""
    return {data[i : i + _HASH_BYTES] for i in range(0, len(data), _HASH_BYTES)}

"""The request to take part and its welcome.

A hospital and a consortium exchange these two papers once, by mail. Neither holds a secret. The request carries the
hospital's public keys, the welcome the certificate that the consortium made for them. Both have a fingerprint that two
people can read to each other over the telephone.

>>> Request("lille", "-----BEGIN CERTIFICATE REQUEST-----", "ab" * 32, "00" * 64).fingerprint
'e766-000d-aeb5-afb4-85be'
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from configs.errors import ConfigError
from configs.folder import ADDRESS
from configs.keys.values import SITE_NAME
from configs.schema import canonical_json
from configs.shown import shown

MAX_PAPER_BYTES = 100_000
RESERVED = {"coordinator"}  # the other side's name in every seal
_KEY = ("64 hexadecimal digits", re.compile(r"[0-9a-f]{64}"))
_RELEASE = ("a release's number", re.compile(r"[0-9A-Za-z.+!-]{1,40}"))
_FORMS = {  # of the fields that name files or are shown on a terminal; certificates are read where they are used
    "site": ("a hospital's name of a-z, 0-9, - and _, not 'coordinator'", SITE_NAME),
    "signing_key": _KEY,
    "proof": ("a signature in hexadecimal", re.compile(r"[0-9a-f]{128}")),
    "coordinator": ("host:port", ADDRESS),
    "coordinator_key": _KEY,
    "version": _RELEASE,
    "flwr": _RELEASE,
}
Paper = TypeVar("Paper", "Request", "Welcome")


@dataclass(frozen=True, slots=True)
class Request:
    """A hospital asks to take part.

    `signing_request` is a PKCS #10 request in PEM, signed by the key that will open connections; `signing_key` is the
    Ed25519 key of its messages, in hexadecimal; `proof` is that key's signature over the rest.
    """

    site: str
    signing_request: str
    signing_key: str
    proof: str

    @property
    def statement(self) -> bytes:
        """Return the statement that `proof` signs."""
        body = {"site": self.site, "signing_request": self.signing_request, "signing_key": self.signing_key}
        return canonical_json(body).encode("ascii")

    @property
    def fingerprint(self) -> str:
        """Return a fingerprint to compare over the telephone."""
        return _fingerprint(self.statement)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The consortium's answer: the door's address, the authorities to trust, and the hospital's certificate."""

    site: str
    coordinator: str
    ca_certificate: str
    certificate: str
    coordinator_key: str
    version: str
    flwr: str
    without_certificate: bool = False  # an explicit exception: message signatures alone

    @property
    def fingerprint(self) -> str:
        """Return a fingerprint of the authorities to trust, to compare over the telephone."""
        return _fingerprint(f"{self.ca_certificate}{self.coordinator_key}".encode())


def to_json(paper: Request | Welcome) -> bytes:
    """Return the paper as a file."""
    return (json.dumps(asdict(paper), indent=1) + "\n").encode("ascii")


def from_json(kind: type[Paper], data: bytes, source: str) -> Paper:
    """Return the paper in a file's bytes, which may come from a hostile author.

    Raises:
        ConfigError: it is not such a paper.
    """
    expected = {f.name: f.type for f in fields(kind)}
    try:
        values: Any = json.loads(data) if len(data) <= MAX_PAPER_BYTES else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or set(values) != set(expected):
        names = ", ".join(expected)
        raise ConfigError(source, [f"expected a {kind.__name__.lower()} with {names}; ask for the file again"])
    wrong = [f"{name}: expected {_of(form)}" for name, form in expected.items() if type(values[name]) is not form]
    wrong = wrong or [
        f"{name}: expected {what}, found {shown(values[name], 80)}"
        for name, (what, pattern) in _FORMS.items()
        if name in expected and not (pattern.fullmatch(values[name]) and values[name] not in RESERVED)
    ]
    if wrong:
        raise ConfigError(source, [f"{problem}; ask for the file again" for problem in wrong])
    return kind(**values)


def _of(form: Any) -> str:
    return {str: "text", bool: "true or false"}.get(form, str(form))


def _fingerprint(data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    return "-".join(digest[i : i + 4] for i in range(0, 20, 4))

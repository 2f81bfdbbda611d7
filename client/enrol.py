"""Enrolment of a hospital: its keys, its request to take part, and the consortium's welcome.

The keys are made at the hospital; the request carries their public halves. There are two keys: a P-384 key that opens
connections (it is in the certificate and is Flower's node key), an Ed25519 key that signs every message and every
journal record. Both lie in `keys/`, readable by their owner alone, and never move.
"""

import os
import re
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from configs.errors import ConfigError, RunError
from configs.papers import Request, Welcome, from_json, to_json
from configs.site import SiteConfig
from strategies.exchange.keys import SigningKey, verify

REQUEST = "request.json"
NODE_KEY, SIGNING_KEY, CERTIFICATE = "node.key", "signing.key", "site.crt"
_PUBLIC_KEY = re.compile("[0-9a-f]{64}")


def enrol(config: SiteConfig) -> tuple[Path, Request]:
    """Make the keys, unless they are there, and write the request to send to the consortium.

    A request that fits the keys stays as it is: signatures differ from one time to the next, and so would the
    fingerprint that two people compare.
    """
    config.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (config.keys / NODE_KEY).exists():
        key = ec.generate_private_key(ec.SECP384R1())
        _write_secret(config.keys / NODE_KEY, _pem(key))
    if not (config.keys / SIGNING_KEY).exists():
        _write_secret(config.keys / SIGNING_KEY, SigningKey.generate().to_pem())
    signer, path = load_signing_key(config), config.folder / REQUEST
    if (written := _written(path, config, signer)) is not None:
        return path, written
    unsigned = Request(config.site, _signing_request(config), signer.public, "")
    request = Request(config.site, unsigned.signing_request, unsigned.signing_key, signer.sign(unsigned.statement))
    path.write_bytes(to_json(request))
    return path, request


def join(config: SiteConfig, paper: Path, *, replace: bool = False) -> Welcome:
    """Keep the consortium's welcome, once it fits this hospital and its keys.

    Args:
        replace: whether one by another authority, or of another coordinator's key, may take the former one's place.

    Raises:
        ConfigError: it is another hospital's, made for other keys, damaged, or over; nothing is kept.
    """
    welcome = from_json(Welcome, paper.read_bytes(), str(paper))
    problems = []
    if welcome.site != config.site:
        problems.append(f"site: expected {config.site}, found {welcome.site[:63]!r}; ask for this hospital's welcome")
    if welcome.coordinator != config.coordinator:
        problems.append(
            f"coordinator: site.yaml says {config.coordinator}, the welcome {welcome.coordinator[:80]!r}; correct one"
        )
    if not _same_key(welcome.certificate, load_node_key(config)):
        problems.append("certificate: it was not made for this hospital's key; send the request of this folder again")
    else:
        problems += _flaws(welcome)
    if not _PUBLIC_KEY.fullmatch(welcome.coordinator_key):
        problems.append("coordinator_key: expected 64 hexadecimal digits, found something else; ask for the file again")
    if not problems and not replace:
        problems += _changed_hands(config, welcome)
    if problems:
        raise ConfigError(str(paper), problems)
    (config.keys / CERTIFICATE).write_text(welcome.certificate, "ascii")
    config.welcome.write_bytes(to_json(welcome))
    return welcome


def _changed_hands(config: SiteConfig, welcome: Welcome) -> list[str]:
    """Return what a new welcome has of another consortium than the one that this hospital joined."""
    if not config.welcome.is_file():
        return []
    try:
        former = load_welcome(config)
    except ConfigError:
        return []  # damaged: it cannot be held against anything, and `check` says so
    changed = {
        "ca_certificate: expected the authority": (former.ca_certificate, welcome.ca_certificate),
        "coordinator_key: expected the key": (former.coordinator_key, welcome.coordinator_key),
    }
    return [
        f"{what} of the welcome that was joined before (fingerprint {former.fingerprint}), found another (welcome "
        f"{welcome.fingerprint}): studies approved here would run for others; telephone the consortium, compare both "
        "fingerprints, then join again with --replace"
        for what, (before, now) in changed.items()
        if before != now
    ]


def load_certificate(config: SiteConfig) -> x509.Certificate:
    """Return the certificate that `join` kept.

    Raises:
        RunError: there is none that can be read.
    """
    path = config.keys / CERTIFICATE
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        reason = str(error.strerror or type(error).__name__).lower()
    except ValueError:
        reason = "something else"
    raise RunError(
        f"{path}: expected this hospital's certificate in PEM, found {reason}; archipel-site join WELCOME writes it "
        "again"
    )


def load_welcome(config: SiteConfig) -> Welcome:
    """Return the welcome that `join` kept.

    Raises:
        RunError: this hospital has not joined.
    """
    if not config.welcome.is_file():
        raise RunError("this hospital has not joined yet: archipel-site enrol, send the request, then join WELCOME")
    return from_json(Welcome, config.welcome.read_bytes(), str(config.welcome))


def load_node_key(config: SiteConfig) -> ec.EllipticCurvePrivateKey:
    """Return the key that opens connections.

    Raises:
        RunError: there is none.
    """
    try:
        key = serialization.load_pem_private_key((config.keys / NODE_KEY).read_bytes(), None)
    except FileNotFoundError:
        raise RunError("this hospital has no keys yet: archipel-site enrol") from None
    except ValueError:
        raise RunError(
            f"{config.keys / NODE_KEY}: expected a private key, found none; restore it, or remove it and enrol anew"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise RunError(f"{config.keys / NODE_KEY}: expected a P-384 key, found another kind; remove it and enrol anew")
    return key


def load_signing_key(config: SiteConfig) -> SigningKey:
    """Return the key that signs messages and journal records.

    Raises:
        RunError: there is none that can be read.
    """
    path = config.keys / SIGNING_KEY
    if not path.is_file():
        raise RunError("this hospital has no keys yet: archipel-site enrol")
    try:
        return SigningKey.from_pem(path.read_bytes(), str(path))
    except ConfigError as error:
        raise RunError(f"{path}: {error.problems[0]}; restore it, or remove it and enrol anew") from None


def _signing_request(config: SiteConfig) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, config.site)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(load_node_key(config), hashes.SHA384())
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _written(path: Path, config: SiteConfig, signer: SigningKey) -> Request | None:
    """Return the request that lies here, if it is this hospital's and fits its keys."""
    try:
        request = from_json(Request, path.read_bytes(), str(path))
        signing_request = x509.load_pem_x509_csr(request.signing_request.encode("ascii"))
        intact = signing_request.is_signature_valid and verify(request.signing_key, request.statement, request.proof)
        public = signing_request.public_key()
    except (OSError, ValueError, TypeError, ConfigError):
        return None
    if not intact or (request.site, request.signing_key) != (config.site, signer.public):
        return None
    return request if public == load_node_key(config).public_key() else None


def _flaws(welcome: Welcome) -> list[str]:
    """Return what is wrong with a welcome's authority, or with the time of the certificate."""
    certificate = x509.load_pem_x509_certificate(welcome.certificate.encode("ascii"))
    flaws = []
    try:
        authority = x509.load_pem_x509_certificate(welcome.ca_certificate.encode("ascii"))
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        flaws.append(
            "ca_certificate: expected the authority that signed the certificate, found something else; ask for the "
            "file again"
        )
    now, begins, ends = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        flaws.append(
            f"certificate: it expired on {ends:%Y-%m-%d}; send request.json again, the consortium admits it again"
        )
    elif now < begins:
        flaws.append(f"certificate: it is valid from {begins:%Y-%m-%d %H:%M} UTC on; set this machine's clock (NTP)")
    return flaws


def _same_key(certificate: str, key: ec.EllipticCurvePrivateKey) -> bool:
    try:
        public_key = x509.load_pem_x509_certificate(certificate.encode("ascii")).public_key()
    except ValueError:
        return False
    return (
        isinstance(public_key, ec.EllipticCurvePublicKey)
        and public_key.public_numbers() == key.public_key().public_numbers()
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_secret(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read, from the first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)

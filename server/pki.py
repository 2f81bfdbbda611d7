"""The consortium's certificate authority.

It makes a root, the door's certificate, and one certificate for each hospital. Keys are made here and never leave; a
hospital's key is made at the hospital, only its request comes. P-384 throughout, because Flower's node keys must be EC
keys and a hospital's certificate carries that very key: so the gateway can tell that a connection and the node that
speaks through it are the same hospital.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from configs.errors import ConfigError
from configs.files import write_atomically
from configs.papers import Request
from strategies.exchange.keys import SigningKey, verify

PASSPHRASE = "ARCHIPEL_CA_PASSPHRASE"  # noqa: S105 - the variable's name
ROOT_DAYS, SERVER_DAYS, SITE_DAYS = 3650, 398, 398
_BACKDATED = datetime.timedelta(minutes=30)  # a hospital's clock may be a little behind
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pki:
    """The folder of the authority."""

    folder: Path

    @property
    def ca_certificate(self) -> Path:
        """Return the root that both sides trust."""
        return self.folder / "ca.crt"

    @property
    def signing_key(self) -> Path:
        """Return the key that signs the coordinator's messages and its journal."""
        return self.folder / "signing.key"

    def require_none(self) -> None:
        """See that there is no authority yet.

        Raises:
            ConfigError: there is; a second one would lock every hospital out.
        """
        if self.ca_certificate.exists():
            raise ConfigError(str(self.folder), ["expected no authority yet, found one; it is not replaced"])

    def create(self, name: str, names: Sequence[str], passphrase: bytes | None) -> None:
        """Make the root, the door's certificate and the coordinator's signing key.

        Raises:
            ConfigError: there is an authority already; a second one would lock every hospital out.
        """
        self.require_none()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = ec.generate_private_key(ec.SECP384R1())
        certificate = _root(root, name)
        _write_secret(self.folder / "ca.key", _pem(root, passphrase))
        _write_secret(self.signing_key, SigningKey.generate().to_pem())
        self._issue_server(root, certificate, names)
        write_atomically(self.ca_certificate, certificate.public_bytes(serialization.Encoding.PEM))

    def renew_server(self, names: Sequence[str], passphrase: bytes | None) -> None:
        """Write a new certificate for the door, for other names or after the old one's year."""
        self._issue_server(self._root_key(passphrase), self._root_certificate(), names)

    def sign(self, request: Request, source: str, passphrase: bytes | None) -> tuple[str, bytes]:
        """Return a hospital's certificate in PEM, and its public key in PEM.

        Raises:
            ConfigError: the request is not signed by its own keys, or its key is of another kind.
        """
        public = check_request(request, source)
        issuer = self._root_certificate()
        certificate = (
            _builder(request.site, issuer.subject, public, SITE_DAYS)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._root_key(passphrase), hashes.SHA384())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"), public_pem(public)

    def load_signing_key(self) -> SigningKey:
        """Return the coordinator's own key."""
        return SigningKey.from_pem(self.signing_key.read_bytes(), str(self.signing_key))

    def _root_certificate(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.ca_certificate.read_bytes())

    def _root_key(self, passphrase: bytes | None) -> Key:
        path = self.folder / "ca.key"
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), passphrase)
        except (ValueError, TypeError):
            raise ConfigError(
                str(path), [f"cannot be opened: its passphrase is missing or wrong; set {PASSPHRASE}"]
            ) from None
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def _issue_server(self, root: Key, issuer: x509.Certificate, names: Sequence[str]) -> None:
        key = ec.generate_private_key(ec.SECP384R1())
        certificate = (
            _builder(names[0], issuer.subject, key.public_key(), SERVER_DAYS)
            .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(root, hashes.SHA384())
        )
        _write_secret(self.folder / "server.key", _pem(key, None))
        write_atomically(self.folder / "server.crt", certificate.public_bytes(serialization.Encoding.PEM))


def check_request(request: Request, source: str) -> ec.EllipticCurvePublicKey:
    """Return the public key of a request, after checking its two signatures.

    Raises:
        ConfigError: one does not.
    """
    try:
        signing_request = x509.load_pem_x509_csr(request.signing_request.encode("ascii"))
        signed = signing_request.is_signature_valid
        public = signing_request.public_key()
    except (ValueError, TypeError):
        signed, public = False, None
    if not signed or not verify(request.signing_key, request.statement, request.proof):
        raise ConfigError(
            source, ["expected a request signed by its own keys, found one that is not; ask for it again"]
        )
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP384R1):
        raise ConfigError(source, ["expected a P-384 key, found another kind; enrol with this release"])
    return public


def expiry(certificate: str) -> str:
    """Return when a certificate in PEM ends, in ISO 8601."""
    return x509.load_pem_x509_certificate(certificate.encode("ascii")).not_valid_after_utc.isoformat()


def public_pem(public: ec.EllipticCurvePublicKey) -> bytes:
    """Return the public key as Flower writes it."""
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _root(key: Key, name: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} (Archipel authority)"[:64])])
    return (
        _builder(None, subject, key.public_key(), ROOT_DAYS)
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA384())
    )


def _builder(
    common_name: str | None, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if common_name is None:
        return builder
    return builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])]))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: Key, passphrase: bytes | None) -> bytes:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _write_secret(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read, from the first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)

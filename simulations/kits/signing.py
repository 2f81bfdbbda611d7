"""A reviewer's signature over a kit's digest, in a file beside the wheel."""

import os
from pathlib import Path

from configs.errors import RunError
from configs.files import write_atomically
from configs.kit import SIGNATURES, statement_of
from configs.kit_rules import require_kit
from strategies.exchange.keys import SigningKey


def sign_wheel(wheel: Path, key_file: Path) -> tuple[Path, str]:
    """Sign a wheel's digest; return the file with the signatures and the reviewer's public key.

    Raises:
        KitError: the wheel breaks a rule. ConfigError: the key's file holds no key. RunError: a file cannot be read or
            written.
    """
    try:
        kit = require_kit(wheel.read_bytes(), wheel.name)
        key = _key(key_file)
        path = wheel.with_name(wheel.name + SIGNATURES)
        lines = [line for line in _lines(path) if not line.startswith(f"{key.public} ")]
        lines.append(f"{key.public} {key.sign(statement_of(kit.sha256))}")
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise RunError(f"{error.filename or wheel}: {error.strerror}; nothing was signed") from None
    return path, key.public


def _lines(path: Path) -> list[str]:
    return path.read_text("ascii").splitlines() if path.is_file() else []


def _key(path: Path) -> SigningKey:
    if path.exists():
        return SigningKey.from_pem(path.read_bytes(), str(path))
    key = SigningKey.generate()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.to_pem())
    return key

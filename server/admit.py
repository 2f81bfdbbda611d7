"""Admission of hospitals: which name a request may take, decided before a signature.

It also fixes the order in which an admission is written down. A request comes by mail from people whom the consortium
has not seen. The name in it is a claim: other keys under a name that is taken, or one that was revoked, are an act of a
person who compared fingerprints (`--replace`).
"""

from dataclasses import dataclass
from pathlib import Path

from configs import journal as journals
from configs.coordinator import CoordinatorConfig
from configs.errors import RunError
from configs.files import write_atomically
from configs.folder import typed
from configs.papers import Request, Welcome, from_json, to_json
from configs.records.coordinator_journal import Admitted
from server.folder import CoordinatorFolder
from server.membership import Member
from server.pki import Pki, check_request, expiry, public_pem
from server.recorded import versions


@dataclass(frozen=True, slots=True)
class Admission:
    """The result of an admission: `replaced` names in words the hospital replaced, `path` is the welcome's place."""

    request: Request
    welcome: Welcome
    path: Path
    replaced: str


def admit(
    folder: CoordinatorFolder, path: Path, *, replace: bool, signatures_alone: bool, passphrase: bytes | None
) -> Admission:
    """Sign a hospital's request and write its welcome.

    Args:
        path: of the request.
        replace: though the name is taken by other keys, or was revoked.
        signatures_alone: without a client certificate.
        passphrase: of the authority's key.

    Raises:
        RunError, ConfigError: the request is none, or may not be admitted; nothing is written.
    """
    config = folder.config
    request = from_json(Request, path.read_bytes(), str(path))
    pki, members = Pki(config.pki), folder.members
    public_key = public_pem(check_request(request, str(path)))
    replaced = require_admissible(config, request, public_key, members.sites(), path=path, replace=replace)
    certificate, public_key = pki.sign(request, str(path), passphrase)
    installed = versions()
    welcome = Welcome(
        site=request.site,
        coordinator=f"{config.names[0]}:{config.listen.rpartition(':')[2]}",
        ca_certificate=pki.ca_certificate.read_text("ascii"),
        certificate=certificate,
        coordinator_key=pki.load_signing_key().public,
        version=installed["archipel"],
        flwr=installed["flwr"],
        without_certificate=signatures_alone,
    )
    place = config.folder / "welcome" / f"{request.site}.json"
    place.parent.mkdir(exist_ok=True)
    write_atomically(place, to_json(welcome))
    record = Admitted(
        site=request.site,
        request=request.fingerprint,
        signing_key=request.signing_key,
        without_certificate=signatures_alone,
        replaced=replaced,
    )
    folder.note(record)
    # Last: a member has a welcome, and stands in the journal.
    members.admit(Member(request.site, public_key, request.signing_key, expiry(certificate), signatures_alone))
    return Admission(request, welcome, place, replaced)


def require_admissible(
    config: CoordinatorConfig, request: Request, public_key: bytes, members: list[Member], *, path: Path, replace: bool
) -> str:
    """Return what is replaced, in words, empty where nothing is.

    Args:
        members: everybody admitted so far, the revoked too.
        path: of the request, for the command that the error names.

    Raises: RunError: its keys are another hospital's; or its name is taken by other keys, or was revoked, and no person
    said that this is meant.
    """
    for member in members:
        if member.site != request.site and (
            member.public_key == public_key or member.signing_key == request.signing_key
        ):
            raise RunError(
                f"{request.site}: its keys are another hospital's ({member.site}); each hospital enrols by itself"
            )
    former = next((member for member in members if member.site == request.site), None)
    if former is None:
        return ""
    same = (former.public_key, former.signing_key) == (public_key, request.signing_key)
    if same and not former.revoked:
        return ""
    was = "was revoked" if former.revoked else "is admitted"
    keys = "with these keys" if same else "with other keys"
    text = (
        f"{request.site}: a hospital of this name {was} {keys}; its fingerprint was "
        f"{_former_fingerprint(config, former)}, this request's is {request.fingerprint}"
    )
    if not replace:
        again = typed("archipel-coordinator", config.folder, f"admit {path} --replace")
        raise RunError(
            f"{text}; telephone the hospital, and compare. If it made this request, and is to take part: {again}"
        )
    return text


def _former_fingerprint(config: CoordinatorConfig, former: Member) -> str:
    """Return the fingerprint of the request that was admitted before, as the journal has it."""
    if not config.journal.exists():
        return f"not written down (signing key {former.signing_key[:16]}...)"
    records = (record.of(Admitted) for record in journals.read(config.journal))
    requests = [entry.request for entry in records if entry and entry.signing_key == former.signing_key]
    return requests[-1] if requests else f"not written down (signing key {former.signing_key[:16]}...)"

"""Who may be admitted under which name, decided before anything is signed; and the order in which it is written down.

A request comes by mail from people whom the consortium has not seen. The name in it is a claim: other keys under a name
that is taken, or one that was revoked, are an act of a person who compared fingerprints (`--replace`).
"""

from pathlib import Path

from configs import journal as journals
from configs.coordinator import CoordinatorConfig
from configs.errors import RunError
from configs.folder import typed
from configs.papers import Request
from configs.records.coordinator_journal import Admitted
from server.membership import Member


def require_admissible(
    config: CoordinatorConfig, request: Request, public_key: bytes, members: list[Member], *, path: Path, replace: bool
) -> str:
    """Return what is replaced, in words, empty where nothing is.

    Args:
        members: everybody admitted so far, the revoked too.
        path: of the request, for the command that the error names.

    Raises:
        RunError: its keys are another hospital's; or its name is taken by other keys, or was revoked, and nobody said
            that this is meant.
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
    """The fingerprint of the request that was admitted before, as the journal has it."""
    if not config.journal.exists():
        return f"not written down (signing key {former.signing_key[:16]}...)"
    records = (record.of(Admitted) for record in journals.read(config.journal))
    requests = [entry.request for entry in records if entry and entry.signing_key == former.signing_key]
    return requests[-1] if requests else f"not written down (signing key {former.signing_key[:16]}...)"

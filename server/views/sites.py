"""The hospitals of a consortium: admitted, connected, or with an expiring certificate."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

from server.membership import Membership


@dataclass(frozen=True, slots=True)
class Site:
    """A hospital; `release` is what its node last said that it runs, empty where it said nothing."""

    site: str
    state: str
    expires: str
    days_left: int
    without_certificate: bool
    release: str
    coordinators_release: str


def sites(members: Membership) -> Iterator[Site]:
    """Yield every hospital that was admitted, the revoked too."""
    connected, talks, release = members.connected(), members.talks(), metadata.version("archipel")
    for member in members.sites():
        state = "revoked" if member.revoked else "connected" if member.site in connected else "not connected"
        days = (datetime.fromisoformat(member.expires) - datetime.now(UTC)).days
        node = talks[member.site].release if member.site in talks else ""
        yield Site(member.site, state, member.expires, days, member.without_certificate, node, release)

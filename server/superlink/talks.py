"""The protocol and release that each hospital's node named in its last greeting.

>>> talks = Talks({"lille": Talk(2, "0.1.0")})
>>> talks.of("lille").protocol, talks.of("lyon").protocol
(2, 1)
"""

import re
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from flwr.app import ConfigRecord, Message

from configs import wire
from configs.errors import WireError
from configs.frame import Frame
from server.membership import Talk

RELEASE = metadata.version("archipel")
FORMS = {
    kind: (form, f"{form} reply") for kind, form in wire.ASKS.items()
}  # type of a message -> its form, its reply's
_RELEASE = re.compile(r"[0-9A-Za-z.+-]{0,40}")


class Talks:
    """Hospitals' talks.

    Args:
        stored: what each hospital's node said before; its reply to a proposal renews it.
        note: called with what a node says.
    """

    def __init__(self, stored: Mapping[str, Talk], note: Callable[[str, Talk], None] = lambda *_: None) -> None:
        self._talks, self._note = dict(stored), note

    def of(self, site: str) -> Talk:
        """Return what a hospital's node can talk, as it last said; protocol 1 where it has said nothing."""
        return self._talks.get(site, Talk())

    def obstacle(self, site: str, message: Message) -> str:
        """Say why a hospital's node cannot read a message; empty where it can."""
        config = message.content.get(wire.CONFIG)
        fields: dict[str, Any] = dict(config) if isinstance(config, ConfigRecord) else {}
        form, _ = FORMS[message.metadata.message_type]
        if self.of(site).protocol >= wire.OPTIONAL_FROM or wire.without_optional(form, fields) == fields:
            return ""
        release = self.of(site).release
        named = f"its release of Archipel ({release})" if release else "its release of Archipel"
        return f"{named} cannot read this message; its node must be upgraded"

    def listen(self, site: str, frame: Frame) -> None:
        """Note what a hospital's node says that it can talk.

        Raises:
            WireError: it greets in another's name, or its release is none.
        """
        fields = frame.fields
        if fields["site"] != site:
            raise WireError("hello reply: expected the hospital's own name, found another's")
        release = str(fields.get("release", ""))
        if not _RELEASE.fullmatch(release):
            raise WireError("hello reply: expected a release such as 0.1.0, found something else")
        talk = Talk(int(fields.get("protocol_max", 1)), release, int(fields.get("arithmetic", 0)))
        self._talks[site] = talk
        self._note(site, talk)

    def forget(self, site: str) -> None:
        """Forget a node's protocol, so that it is next asked in the first one."""
        self._talks.pop(site, None)

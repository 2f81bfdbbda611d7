"""Notices shown beside budgets: contradictions, settings not followed, lost data sets."""

from collections.abc import Iterator
from dataclasses import dataclass

from client.folder import SiteFolder
from client.identities import forgotten
from client.records import reasons_in
from client.site_file import outdated


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that is not as it should be, and what a person must do."""

    text: str
    todo: str = ""


def notices(folder: SiteFolder) -> Iterator[Notice]:
    """Yield what is not as it should be in a hospital's folder."""
    for reason in reasons_in(folder.config):
        yield Notice(f"nothing trains here: {reason}", f"a person must run: {folder.typed('settle')}")
    if outdated(folder.config):
        yield Notice("site.yaml changed since the node started, which follows the former one: restart the node")
    for lost in forgotten(folder.config):
        yield Notice(str(lost), lost.todo)

"""The assignment of a sealed grid: the hospitals it may reach, its run, and its watcher.

>>> Watch().stopped()
False
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from configs.journal import Journal
from configs.schema import Study
from configs.seal import Signed
from server.membership import Member, Talk
from server.superlink.client import Node
from strategies.exchange.keys import SigningKey


@dataclass(frozen=True)
class Watch:
    """The watcher of a sealed grid: it takes what hospitals report, and says whether to stop."""

    epsilon: Callable[[str, str], None] = lambda _site, _epsilon: None
    stopped: Callable[[], bool] = lambda: False
    talk: Callable[[str, Talk], None] = lambda _site, _talk: None
    statement: Callable[[str, Signed], None] = lambda _site, _signed: None


@dataclass(frozen=True)
class Directory:
    """The coordinator's facts on the hospitals: connected, admitted, and what each sent before.

    Args:
        talks: what each hospital's node can talk, as it said before; its reply to a proposal renews it.
        statements: each hospital's newest statement about its own records, which goes back to it with each message.
    """

    nodes: Callable[[], Mapping[int, Node]]
    members: Callable[[], Mapping[str, Member]]
    talks: Mapping[str, Talk] = field(default_factory=dict)
    statements: Callable[[], Mapping[str, Signed]] = dict


@dataclass(frozen=True)
class Sender:
    """The run that messages belong to: its name, its study, the key that signs them, the journal that lists them."""

    run: str
    study: Study
    key: SigningKey
    journal: Journal

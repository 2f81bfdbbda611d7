"""What a sealed grid is given: the hospitals that it may reach, the run that it sends for, and who watches it.

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
    """What a sealed grid reports: a hospital's epsilon; and whether it was asked to stop."""

    epsilon: Callable[[str, str], None] = lambda _site, _epsilon: None
    stopped: Callable[[], bool] = lambda: False
    talk: Callable[[str, Talk], None] = lambda _site, _talk: None
    statement: Callable[[str, Signed], None] = lambda _site, _signed: None


@dataclass(frozen=True)
class Directory:
    """What the coordinator knows of the hospitals: who is connected, who is admitted, and what each sent before.

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

"""Instructions to hospitals: one under way, one hospital's content, and its journal entry."""

from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from configs import wire
from configs.seal import COORDINATOR, Signed, Statement
from server.membership import Member


@dataclass
class Instruction:
    """An instruction under way. `since` is the start of the node that it was sent to, `expires` its end (Unix time)."""

    original: Message
    member: Member
    statement: Statement
    since: str
    expires: int
    pushed: bool = True  # whether it was handed to the SuperLink: not while its hospital has no connection
    repeated: bool = False  # whether it was sent again; a reply to either counts


def content_for(message: Message, record: Signed | None) -> RecordDict:
    """Return a message's content as one hospital is sent it: a proposal with its own newest statement.

    Other messages have it beside their seal: their content is what a hospital knows an instruction by.
    """
    records = RecordDict(dict(message.content))
    config = records.get(wire.CONFIG)
    if record is not None and message.metadata.message_type == wire.HELLO and isinstance(config, ConfigRecord):
        records[wire.CONFIG] = ConfigRecord({**config, "record": record.text})
    return records


def addressed(records: RecordDict, original: Message) -> Message:
    """Return a message of these records to the same node and of the same type as another."""
    meta = original.metadata
    return Message(records, dst_node_id=meta.dst_node_id, message_type=meta.message_type)


def facts(statement: Statement, form: str, size: int) -> dict[str, Any]:
    """Return what the journal keeps of a message: enough to prove what was sent, and what either journal said."""
    return {
        "site": statement.to if statement.sender == COORDINATOR else statement.sender,
        "run": statement.run,
        "round": statement.round,
        "study": statement.study,
        "message": statement.message,
        "content": statement.content,
        "answers": statement.answers,
        "epsilon": statement.epsilon,
        "form": form,
        "bytes": size,
    }

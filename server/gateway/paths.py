"""The paths that may be requested at the door, and the headers that pass.

>>> PATHS[b"/v1/fleet/pull-messages"], b"/v1/control/start-run" in PATHS
('http://superlink/v1/fleet/pull-messages', False)
"""

import re
from collections.abc import MutableMapping
from typing import Any

from configs.pieces import FETCH_PATH, HOLD_PATH, REPLY_PATH, STORE_PATH, WINDOW
from configs.wire import PROTOCOL_HEADER, RELEASE_HEADER
from server.refusals import Refusal
from server.signatures import HEADER as REQUEST_HEADER

FLEET_CALLS = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
HEALTH = b"/health"
PATHS = {
    path.encode(): f"http://superlink{path}"
    for path in (*(f"/v1/fleet/{call}" for call in FLEET_CALLS), HOLD_PATH, REPLY_PATH)
}
SHELF_PATHS = (FETCH_PATH.encode(), STORE_PATH.encode())  # answered at the door itself, from files
LARGEST_WINDOW = WINDOW + 10_000
KEY_HEADER = b"flwr-public-key"  # flwr.supercore.constant.FLEET_HTTP_PUBLIC_KEY_HEADER; a test compares
SIGNATURE_HEADERS = (b"flwr-signature", b"flwr-timestamp", REQUEST_HEADER)
FORWARDED = (b"content-type", b"accept", KEY_HEADER, *SIGNATURE_HEADERS)
RETURNED = (b"content-type", b"content-length", PROTOCOL_HEADER.encode(), RELEASE_HEADER.encode())
PROTOBUF = b"application/protobuf"
MAX_HEADER_VALUE = 1024
_VALUE = re.compile(rb"[!-~]+")  # no space: a folded header has one

Scope = MutableMapping[str, Any]


def forwarded_headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers that are forwarded, of a request for something that exists.

    Raises:
        Refusal: 404, 400, 415: it is for something else, or its headers can be read in two ways.
    """
    path, method, peer = scope["raw_path"], scope["method"], scope.get("state", {}).get("peer")
    name = peer.name if peer else ""
    if scope["query_string"] or not (
        (method == "POST" and (path in PATHS or path in SHELF_PATHS)) or (method == "GET" and path == HEALTH)
    ):
        raise Refusal(404, "there is nothing here", name)
    headers: dict[bytes, bytes] = {}
    for header, value in scope["headers"]:
        if header == b"upgrade" or header in headers:
            raise Refusal(400, "expected each header once and no upgrade", name)
        if header in (*FORWARDED, b"content-length"):
            if len(value) > MAX_HEADER_VALUE or not _VALUE.fullmatch(value):
                raise Refusal(400, "expected short headers without spaces", name)
            headers[header] = value
    if method == "POST" and headers.get(b"content-type") != PROTOBUF:
        raise Refusal(415, "expected application/protobuf, found something else", name)
    return headers

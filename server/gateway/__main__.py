"""The gateway's process.

    python -m server.gateway FOLDER               # the door; FOLDER holds coordinator.yaml
    python -m server.gateway FOLDER --auth-only   # nginx is the door (server/nginx.py): answers its questions

Both end when their standard input is closed, so that they cannot outlive their owner.
"""

import importlib.util
import logging
import os
import resource
import sqlite3
import ssl
import sys
from pathlib import Path

from configs.coordinator import CoordinatorConfig, load_coordinator
from configs.errors import ArchipelError
from configs.folder import split_address
from configs.parts import end_with_owner
from server.files import private_folder
from server.gateway.auth_only import make_auth
from server.gateway.forward import make_gateway
from server.gateway.strict_http import MAX_CONNECTIONS, make_server, tls_context
from server.logs import write_lines
from server.membership import Membership
from server.shelf import FOLDER
from server.signatures import SignedRequests
from server.sockets import AUTH_SOCKET, SUPERLINK_SOCKET

log = logging.getLogger("archipel.gateway")


def serve(config: CoordinatorConfig, *, auth_only: bool = False) -> None:
    """Serve the door, or nginx's questions alone; blocks.

    Raises:
        RunError: the members cannot be read.
        OSError: the keys or the socket cannot.
    """
    members = Membership.open(config.database)
    try:
        private_folder(config.sockets)
        signed = SignedRequests(note=lambda site: note_signs(members, site))
        if auth_only:
            auth = make_auth(members.lookup, config.folder / FOLDER, signed)
            return make_server(auth, config.sockets / AUTH_SOCKET).run()
        context = tls_context(config.pki, certificate_required=not members.any_without_certificate())
        gateway = make_gateway(
            config.sockets / SUPERLINK_SOCKET,
            members.lookup,
            max_request_bytes=config.max_request_mb * 1_000_000,
            requests_per_second=config.requests_per_second,
            shelf=config.folder / FOLDER,
            signed=signed,
        )

        def every_second() -> None:
            _follow(members, context)
            gateway.recheck()

        make_server(gateway, split_address(config.listen), context, every_second).run()
    finally:
        members.close()


def note_signs(members: Membership, site: str) -> None:
    """Keep that a hospital's node signs its requests; this process remembers it in any case."""
    try:
        members.set_signs(site)
    except sqlite3.Error as error:
        log.error("that %s signs its requests cannot be written down: %s", site, error)


def _follow(members: Membership, context: ssl.SSLContext) -> None:
    """Accept new connections without a certificate only while some hospital is admitted so."""
    try:
        optional = members.any_without_certificate()
    except sqlite3.Error as error:
        return log.error("the members cannot be read: %s", error)
    mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
    if context.verify_mode != mode:
        context.verify_mode = mode


def main(arguments: list[str]) -> int:
    """Serve until standard input is closed."""
    os.umask(0o077)
    write_lines()
    _raise_file_limit()
    _settle_imports()
    auth_only = "--auth-only" in arguments
    folders = [argument for argument in arguments if argument != "--auth-only"]
    if len(folders) != 1:
        print("usage: python -m server.gateway FOLDER [--auth-only]", file=sys.stderr)
        return 2
    try:
        config = load_coordinator(Path(folders[0]))
        end_with_owner()
        serve(config, auth_only=auth_only)
    except (ArchipelError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _raise_file_limit() -> None:
    """Allow a descriptor for each connection, and one more for it to the SuperLink."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = 4 * MAX_CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < target:
        limit = target if hard == resource.RLIM_INFINITY else min(target, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _settle_imports() -> None:
    """Mark a package as absent that httpcore looks for four times a request; a vain search takes half of its time."""
    if importlib.util.find_spec("sniffio") is None:
        sys.modules["sniffio"] = None  # type: ignore[assignment]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

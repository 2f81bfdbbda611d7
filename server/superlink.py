"""Flower's SuperLink, served on a socket that only its owner can open.

The SuperLink's control and runtime APIs have no guard of their own, and a TCP port on loopback is open to every local
user. So the stock application (flwr.superlink.main.create_app) is served on a Unix socket in a folder of mode 0700.
State is kept in memory: what must outlive a crash (membership, checkpoints, journal) is Archipel's own.

    python -m server.superlink SOCKET    # ends when its standard input is closed, so that it cannot outlive its owner

The few names that are taken from Flower's inside are used here and in server/link.py alone; tests/server/test_link.py
fails loudly should another release move them.
"""

import os
import sys
import threading
from pathlib import Path

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


def main(arguments: list[str]) -> None:
    """Serve until standard input is closed."""
    os.environ.update(QUIET)
    os.umask(0o077)
    threading.Thread(target=_end_with_owner, daemon=True).start()
    serve(Path(arguments[0]))


def _end_with_owner() -> None:
    while os.read(0, 4096):  # not sys.stdin, whose lock this thread would hold while the interpreter ends
        pass
    os._exit(0)


def serve(socket: Path) -> None:
    """Serve the SuperLink's application; blocks."""
    import logging

    import uvicorn
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app

    logging.getLogger("flwr").setLevel(logging.WARNING)  # else a line for each request
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=True,  # a Unix socket: the gateway speaks TLS to the world
        certificates=None,
        superexec_auth_secret=None,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=":flwr-in-memory:",
        isolation="process",  # no SuperExec: the coordinator runs its ServerApp itself
        runtime_dependency_install=False,
    )
    uvicorn.run(create_app(config, SuperLinkLifespan), uds=str(socket), log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1:])

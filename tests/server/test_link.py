"""Flower's inside, as far as the coordinator relies on it: another release must fail here first, and say so."""

import inspect
from importlib import metadata

from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
from flwr.superlink.config_loader import SuperLinkLifespanConfig
from flwr.superlink.grid import HttpGrid
from flwr.superlink.main import create_app

from server import link

READ_ANEW = "read server/link.py and server/superlink.py anew before raising Flower"


def test_flower_is_the_release_that_the_link_was_written_against() -> None:
    assert metadata.version("flwr") == "1.41.0", READ_ANEW


def test_the_superlinks_settings_are_those_that_are_given() -> None:
    ours = {
        *("control_address", "health_server_address", "host", "port", "insecure", "certificates"),
        *("superexec_auth_secret", "authn_plugin", "event_log_plugin", "fleet_event_log_plugin", "enable_event_log"),
        *("artifact_provider", "enable_supernode_auth", "fleet_api_type", "fleet_api_address", "simulation"),
        *("ssl_ca_certfile", "ssl_certfile", "ssl_keyfile", "database", "isolation", "runtime_dependency_install"),
    }
    assert set(inspect.signature(SuperLinkLifespanConfig).parameters) == ours, READ_ANEW
    assert len(inspect.signature(create_app).parameters) >= 2, READ_ANEW
    assert inspect.isclass(SuperLinkLifespan)


def test_the_grid_that_is_built_upon_is_flowers() -> None:
    assert issubclass(link.LinkGrid, HttpGrid)
    for call in ("AcquireTask", "PullTaskInput", "PushMessages", "PullMessages", "PushObject", "PullObject"):
        assert callable(getattr(link.RuntimeHttpClient, call)), READ_ANEW
    for call in ("ListNodes", "RegisterNode", "StartRun", "StopRun"):
        assert callable(getattr(link.ControlHttpClient, call)), READ_ANEW

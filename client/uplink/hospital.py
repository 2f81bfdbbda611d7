"""How this hospital authenticates to its coordinator: by a certificate or signed requests.

Requests are signed where the hospital has no certificate.
"""

import ssl

from client.enrol import CERTIFICATE, NODE_KEY, load_node_key
from client.uplink.fleet import Fleet
from client.uplink.tls import trust
from configs.papers import Welcome
from configs.site import SiteConfig

OVERHEAD_BYTES = 4_000_000  # of a message, beside its arrays


def max_message_bytes(config: SiteConfig) -> int:
    """Return the bytes of the largest message that the policy lets come or go."""
    return config.policy.max_message_mb * 1_000_000 + OVERHEAD_BYTES


def tls_of(config: SiteConfig, welcome: Welcome) -> ssl.SSLContext:
    """Return the TLS settings towards the coordinator.

    Raises:
        RunError: naming the file that cannot be used, and what to do.
    """
    keys = None if welcome.without_certificate else config.keys
    return trust(
        welcome.ca_certificate,
        certificate=str(keys / CERTIFICATE) if keys else None,
        key=str(keys / NODE_KEY) if keys else None,
        extra_ca=str(config.extra_ca) if config.extra_ca else None,
    )


def open_fleet(config: SiteConfig, welcome: Welcome) -> Fleet:
    """Return a connection on which nothing was sent yet.

    Raises:
        RunError: a file cannot be used, or the environment names a proxy that is none.
    """
    return Fleet(
        welcome.coordinator,
        tls_of(config, welcome),
        load_node_key(config),
        max_message_bytes=max_message_bytes(config),
        sign_requests=welcome.without_certificate,
    )

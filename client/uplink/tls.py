"""TLS towards the coordinator: the hospital's certificate and the authorities it trusts."""

import ssl

from configs.errors import RunError


def trust(ca_certificate: str, *, certificate: str | None, key: str | None, extra_ca: str | None) -> ssl.SSLContext:
    """Make the TLS settings: TLS 1.3, the consortium's authority alone, and this hospital's certificate.

    Args:
        certificate, key: paths; None where the hospital is admitted by message signatures alone.
        extra_ca: path of the hospital proxy's authority, where it opens TLS.

    Raises:
        RunError: naming the file that cannot be used, and what to do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(cadata=ca_certificate)
    except (OSError, ValueError, TypeError):
        raise RunError(
            "welcome.json: ca_certificate: expected the authority's certificate in PEM, found something else; "
            "archipel-site join WELCOME again"
        ) from None
    if extra_ca is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cafile=extra_ca)
        except OSError as error:
            raise RunError(
                f"{extra_ca}: expected the authority of the hospital's proxy in PEM (extra_ca in site.yaml), found "
                f"{_found(error)}; correct the path, or ask the network team for the file"
            ) from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except OSError as error:
            raise RunError(
                f"{certificate}: expected this hospital's certificate in PEM, made for the key {key}, found "
                f"{_found(error)}; archipel-site join WELCOME writes it again"
            ) from None
    return context


def _found(error: OSError) -> str:
    """Describe what is in the place of a PEM file; OpenSSL's own words say nothing to people."""
    return "something else" if isinstance(error, ssl.SSLError) else str(error.strerror or "none").lower()

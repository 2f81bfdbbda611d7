"""What went wrong with a data base, in sentences of our own.

What the data base or its driver says may hold a value or the address. The sentences are chosen by SQLSTATE, and before
a session is open, when libpq has none, by words of its text.

>>> why_not_connected("FATAL:  sorry, too many clients already", used_password=True)
'no connection is free; try again later'
"""

import re
from collections.abc import Mapping

import psycopg

from client.connectors.sql import TOO_LONG

_CHECK = "archipel-site check says which"
_NOT_CONNECTED: tuple[tuple[str, str], ...] = (  # what libpq's text holds -> what to say; the first that fits
    (
        "password authentication failed|no password supplied|authentification par mot de passe",
        "the data base does not accept this user and password; correct the variable",
    ),
    (
        "does not match host name",
        "the certificate of {where} is for other names; write the host as the certificate does, here and in "
        "worker_network",
    ),
    (
        "certificate verify failed|self-signed|self signed|unable to get local issuer",
        "the certificate of {where} is not signed by an authority that is trusted here; name the authority's file in "
        "the address: sslrootcert=/etc/ssl/hospital.pem",
    ),
    (
        "root certificate file",
        "the authority's file that the address names (sslrootcert) is not there or cannot be read; correct it",
    ),
    (
        "server does not support SSL",
        "{where} offers no TLS, and patients' rows would be readable on their way; turn TLS on there, or accept that "
        "by sslmode=disable in the address",
    ),
    ("no pg_hba", "the data base lets this user not in from this machine, or not without TLS; add it to pg_hba.conf"),
    ('database "[^"]*" does not exist', "no data base of the name in the address; correct the variable"),
    ("too many clients|too many connections|remaining connection slots", "no connection is free; try again later"),
    ("starting up|shutting down|recovery mode", "the data base is starting or stopping; try again later"),
    (
        "resolve host|translate host name",
        "the name in {where} is not known here; correct the variable or the name server",
    ),
    (
        "Connection refused",
        "{where} refuses the connection; start the data base, correct the port, or let this machine connect to it",
    ),
    ("timeout expired|timed out", "{where} does not answer; let this machine connect to it, or start the data base"),
    ("SSL error|SSL SYSCALL|certificate", "no TLS with {where}; look at sslmode and the certificates of both sides"),
    (
        "closed the connection unexpectedly|Connection reset|could not receive|could not send|Broken pipe",
        f"{{where}} cannot be reached: its name, a firewall, or the data base that is down; {_CHECK}",
    ),
)


def why_not_connected(text: str, *, used_password: bool) -> str:
    """Return why there is no session, by words of libpq's text; it may hold `{where}`, to be filled in."""
    for words, reason in _NOT_CONNECTED:
        if re.search(words, text):
            return reason
    if used_password:  # a server's own words are in its own language
        return "the data base does not accept this user, password or data base's name; correct the variable"
    return "{where} opens no session; look at the data base's own log"


_REFUSED: Mapping[str, str] = {  # SQLSTATE, or its class -> what to say
    "25006": "the query would change data{near}, and it may only read; write one SELECT",
    "42501": "this user may not read a table or column of the query{near}; grant it SELECT",
    "42703": "a column of the query is not in the data base{near}; correct its name, or write AS for a new one",
    "42P01": "a table or view of the query is not in the data base{near}; correct its name, or name its schema",
    "3F000": "a schema of the query is not in the data base{near}; correct its name",
    "42883": "a function or comparison of the query does not fit the types of its arguments{near}; add a cast",
    "42601": "the query is not one SELECT statement of PostgreSQL{near}; correct it",
    "42": "the data base does not take the query{near}; try it with psql",
    "22021": "a cell holds bytes that are no text in the data base's encoding; correct them, or leave the column out",
    "22": "a cast or a calculation of the query fails on a row (it is not shown){near}; try it with psql",
    "57014": TOO_LONG,
    "53": "the data base is short of memory, disk or connections; make the query smaller, or ask who runs it",
    "08": "the connection broke while the query ran; try again, then ask who runs the data base",
    "57": "the data base ended the session; try again, then ask who runs it",
}


def why_refused(error: psycopg.Error, timeout_s: int, before: int) -> str:
    """Return why a statement gave no rows; `before`: characters of it that stand before the query."""
    state = error.sqlstate or ""
    if not state:
        if isinstance(error, psycopg.OperationalError):
            return _REFUSED["08"]
        return "the query gives no rows at all; write one SELECT statement"
    reason = (
        _REFUSED.get(state) or _REFUSED.get(state[:2]) or "the data base does not answer the query; try it with psql"
    )
    position = error.diag.statement_position
    near = f" (character {int(position) - before} of it)" if position and int(position) > before else ""
    return f"{reason.format(near=near, timeout=timeout_s)} [SQLSTATE {state}]"

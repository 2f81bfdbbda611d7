"""The checks of the connection to the coordinator in `archipel-site check`.

They say how far a connection comes, and who must mend it.
"""

from collections.abc import Iterator
from importlib import metadata

from client.findings import CONSORTIUM, IT, NETWORK, NOTE, OK, WARNING, WRONG, Finding
from client.uplink.hospital import tls_of
from client.uplink.reach import Reach, cut_after, reach
from configs.papers import Welcome
from configs.site import SiteConfig

AUTHORITY = "Archipel authority"  # in the name of every consortium's (server/pki.py)
HOST_MISMATCH, IP_MISMATCH, EXPIRED, NOT_YET = 62, 64, 10, 9  # OpenSSL's codes


def look_at_connection(config: SiteConfig, welcome: Welcome) -> Iterator[Finding]:
    """Connect as the node does, and yield what became of each step."""
    context = tls_of(config, welcome)
    reached = reach(welcome.coordinator, context)
    yield from _release(welcome, reached.release)
    via = f" through the proxy {reached.proxy}" if reached.proxy else ""
    if reached.step == "arrived":
        yield _carries(cut_after(welcome.coordinator, context), welcome.coordinator, via)
        yield _clock(reached)
    else:
        yield _unreached(reached, welcome.coordinator, via)


def _release(welcome: Welcome, running: tuple[str, str] | None) -> Iterator[Finding]:
    """Compare what is installed here with what runs there; where that is not known, with what the welcome says."""
    installed = {"archipel": metadata.version("archipel"), "flwr": metadata.version("flwr")}
    expected = dict(zip(installed, running or (welcome.version, welcome.flwr), strict=True))
    if installed == expected:
        yield Finding(
            "release", OK, f"archipel {installed['archipel']} with flwr {installed['flwr']}, as the consortium"
        )
        return
    who, verb, mend = (f"{IT}, with {CONSORTIUM}", "runs", "") if running else (IT, "had", ", or ask for a new welcome")
    for name in expected:
        if installed[name] != expected[name]:
            text = f"{name} {installed[name][:20]} is installed, the consortium {verb} {expected[name][:20]}"
            yield Finding("release", WARNING, text, who, f"install {name} {expected[name][:20]}{mend}")


def _carries(cut: tuple[int, str] | None, coordinator: str, via: str) -> Finding:
    """Tell whether the way, on which a short question was answered, carries what is as large as a message."""
    if cut is None:
        return Finding("connection", OK, f"{coordinator} answers{via}")
    count, how = cut
    start = f"{coordinator} answers{via}, but then the connection"
    who = f"{NETWORK} and the security officer"
    if how == "silent":
        text = f"{start} falls silent after about {count:,} bytes: larger packets are lost on the way"
        return Finding(
            "connection", WRONG, text, who, "lower this machine's MTU to that of the VPN or tunnel on the way"
        )
    text = f"{start} is cut after about {count:,} bytes by something on the way: messages are larger than that"
    todo = f"exempt {coordinator} from the inspection of antivirus, firewall or proxy"
    return Finding("connection", WRONG, text, who, todo)


def _unreached(found: Reach, coordinator: str, via: str) -> Finding:
    """Return where the connection stopped, and who must fix it."""
    allow = f"allow this machine to connect to {coordinator}, TCP, outwards"
    if found.step == "resolve":
        todo = "correct HTTPS_PROXY, or the name server" if found.proxy else "correct the name server, or coordinator"
        return Finding("connection", WRONG, f"the name {found.where} is not known here", NETWORK, todo)
    if found.step == "refused":
        if found.proxy:
            return Finding(
                "connection", WRONG, f"the proxy {found.proxy} does not listen", NETWORK, "correct HTTPS_PROXY"
            )
        text = f"{found.where} refuses the connection: nothing listens there, or a firewall says no"
        return Finding("connection", WRONG, text, f"{CONSORTIUM}, then {NETWORK}", f"start the coordinator; {allow}")
    if found.step == "silent":
        text = f"{found.where} does not answer: the port is blocked, or the network is down"
        return Finding("connection", WRONG, text, NETWORK, allow)
    if found.step == "proxy":
        return _proxied(found, coordinator)
    if found.step == "certificate":
        return _distrusted(found, coordinator, via)
    if found.step == "client":
        text = f"the coordinator does not accept this hospital's certificate ({found.detail.lower()})"
        return Finding(
            "connection", WRONG, text, CONSORTIUM, "look whether this hospital is revoked, or admit it again"
        )
    if found.step == "tls":
        text = f"no TLS 1.3 with {coordinator}{via} ({found.detail.lower()}): something between does not let it pass"
        return Finding("connection", WRONG, text, NETWORK, f"exempt {coordinator} from TLS inspection")
    text = f"{coordinator} answers{via}, but not as a coordinator (HTTP {found.code})"
    return Finding("connection", WRONG, text, f"{NETWORK}, then {CONSORTIUM}", "look who answers at that address")


def _proxied(found: Reach, coordinator: str) -> Finding:
    """Explain a proxy that does not let this hospital through."""
    if found.code == 407:
        text = f"the proxy {found.proxy} asks for a name and password, or does not accept those of HTTPS_PROXY"
        return Finding(
            "connection", WRONG, text, NETWORK, "give this machine an account: HTTPS_PROXY=http://NAME:PASSWORD@…"
        )
    if found.code in (403, 405):
        text = f"the proxy {found.proxy} forbids {coordinator} (HTTP {found.code})"
        return Finding("connection", WRONG, text, NETWORK, f"allow CONNECT to {coordinator} at the proxy")
    text = f"the proxy {found.proxy} does not reach {coordinator} (HTTP {found.code or 'none'})"
    return Finding("connection", WRONG, text, NETWORK, f"look at the proxy's own log for {coordinator}")


def _distrusted(found: Reach, coordinator: str, via: str) -> Finding:
    """Explain a certificate that is not the coordinator's, or no longer."""
    if found.code in (HOST_MISMATCH, IP_MISMATCH):
        text = f"the coordinator's certificate is for other names ({found.detail})"
        return Finding("connection", WRONG, text, CONSORTIUM, "add the name to coordinator.yaml: init --renew")
    if found.code in (EXPIRED, NOT_YET) and AUTHORITY in found.issuer:
        text = f"the coordinator's certificate does not hold today ({found.detail}), or this clock is wrong"
        return Finding("connection", WRONG, text, CONSORTIUM, "archipel-coordinator init --renew")
    if AUTHORITY in found.issuer:
        text = f"{coordinator} shows a certificate by {found.issuer}, which is not the authority of this welcome"
        todo = (
            "telephone the consortium: ask whether it has a new authority, for its fingerprint, and for a new welcome"
        )
        return Finding("connection", WRONG, text, f"{IT}, then {CONSORTIUM}", todo)
    return Finding(
        "connection",
        WRONG,
        f"TLS to {coordinator}{via} is opened on the way: it shows a certificate by {found.issuer or 'others'}",
        f"{NETWORK} and the security officer",
        f"exempt {coordinator} from TLS inspection, so that this hospital's certificate can arrive; or ask the "
        "consortium to admit this hospital by its message signatures alone, and name the proxy's authority in "
        "site.yaml: extra_ca",
    )


def _clock(found: Reach) -> Finding:
    """Return a finding on the clock: Flower refuses times that are off; the node corrects its own up to an hour."""
    if found.clock_s is None:
        return Finding("clock", NOTE, "the coordinator told no time")
    off = round(found.clock_s)
    text = f"{abs(off)} s {'ahead of' if off > 0 else 'behind'} the coordinator's"
    if abs(off) <= 5:
        return Finding("clock", OK, "agrees with the coordinator's")
    verdict = WRONG if abs(off) > 3600 else WARNING
    return Finding("clock", verdict, text, IT, "set the clock (NTP); the node corrects itself up to an hour")

"""The hospital's Flower ClientApp: one handler for proposals, one for every kind of release.

`make_app` is given a way to find the hospital that a message is for: the simulator has many in one process, a node has
one. Nothing else differs between a simulation and a deployment.
"""

import contextlib
import logging
import time
import traceback
from collections.abc import Callable, Generator
from functools import partial

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client import egress
from client.site import Site, driven
from client.timing import wait_until_public
from configs import wire
from configs.errors import ArchipelError, WireError
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import Received, read
from strategies.releases.base import Fit, Release, Request
from strategies.releases.registry import RELEASES

SiteOf = Callable[[Context], Site]
OnError = Callable[[Site | None, Exception], None]
Answering = Generator[Fit, Arrays, Message]
log = logging.getLogger("archipel.client")


def log_error(site: Site | None, error: Exception) -> None:
    """Log what must not leave, at the hospital; an unexpected error may say anything, its text stays out."""
    name = site.name if site else "a hospital"
    if isinstance(error, ArchipelError):
        log.error("%s: %s", name, error)
    else:
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error(
            "%s: unexpected %s (its text is not shown, it may name a patient)\n%s", name, type(error).__name__, where
        )


def make_app(site_of: SiteOf, on_error: OnError = log_error, *, paced: bool = False) -> ClientApp:
    """Make a ClientApp for the hospitals that `site_of` knows; `on_error` keeps what must not leave.

    Args:
        paced: let private answers leave at a public time; where a node stands before the app, it does (client/node.py).
    """
    app = ClientApp()

    def guarded(handler: Callable[[Message, Site], Message]) -> Callable[[Message, Context], Message]:
        def handle(message: Message, context: Context) -> Message:
            site, started = None, time.monotonic()
            try:
                site = site_of(context)
                site.on_failure = partial(on_error, site)
                reply = handler(message, site)
                if paced and site.mode.keys.budgeted and handler is not hello:
                    wait_until_public(started, site.quantum_s)
                return reply
            except Exception as error:
                return _refused(message, site, error, on_error)

        return handle

    app.query("hello")(guarded(hello))
    for kind in RELEASES:
        category, _, action = kind.message_type.partition(".")
        register = getattr(app, category)
        (register(action) if action else register())(guarded(partial(release, kind)))
    return app


def _refused(message: Message, site: Site | None, error: Exception, on_error: OnError) -> Message:
    with contextlib.suppress(Exception):  # a full disk under the log must not put its path into a reply
        on_error(site, error)
    return egress.refusal(message, error)


def hello(message: Message, site: Site) -> Message:
    """Answer a proposal: the hospital takes part if the study is the very one that it approved."""
    proposal = read("hello", message.content).fields
    if proposal["protocol"] != wire.PROTOCOL:
        raise WireError(f"hello: expected protocol {wire.PROTOCOL}, found {proposal['protocol']}; install one release")
    if proposal["study"] != site.study.canonical:
        raise WireError("hello: expected the study that this hospital approved, found another one")
    return egress.reply(
        message,
        "hello reply",
        {"protocol": wire.PROTOCOL, "site": site.name, "study_sha256": site.study.sha256},
    )


def release(kind: Release, message: Message, site: Site) -> Message:
    """Answer an instruction with the release that it asks for."""
    return driven(releasing(kind, message, site, read(kind.form, message.content, site.forms[kind.form])), site.work)


def releasing(kind: Release, message: Message, site: Site, received: Received) -> Answering:
    """`release` for a caller that fits several hospitals at once: yield each fit, and return the reply."""
    if received.fields["study_sha256"] != site.study.sha256:
        raise WireError(f"{kind.form}: expected the study that this hospital approved, found another one")
    request = Request(
        received.arrays,
        round=received.fields.get("round", 0),
        attempt=received.fields.get("attempt", 0),
        loaded=received.arrays.clear,
    )
    released = yield from site.releasing(kind.name, request)
    return egress.reply(message, kind.reply, {}, released, site.forms[kind.reply])


def guarded_releasing(
    kind: Release,
    message: Message,
    site_of: Callable[[], Site],
    received: Callable[[Site], Received],
    on_error: OnError = log_error,
) -> Answering:
    """`releasing` as the ClientApp guards it: a failure is a refusal, and what must not leave goes to `on_error`."""
    site = None
    try:
        site = site_of()
        site.on_failure = partial(on_error, site)
        return (yield from releasing(kind, message, site, received(site)))
    except Exception as error:
        return _refused(message, site, error, on_error)

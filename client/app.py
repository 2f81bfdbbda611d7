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
from configs.frame import Frame
from strategies.exchange.arrays import Arrays
from strategies.exchange.messages import Received, read
from strategies.releases.base import Fit, Request
from strategies.releases.registry import release_of

SiteOf = Callable[[Context], Site]
OnError = Callable[[Site | None, Exception], None]
Answering = Generator[Fit, Arrays, Frame]
HELLO = wire.ASKS[wire.HELLO]
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
        paced: let private answers leave at a public time; a node before the app does it itself (client/answering.py).
    """
    app = ClientApp()

    def handle(form: str, message: Message, context: Context) -> Message:
        started, sites = time.monotonic(), list[Site]()

        def site() -> Site:
            sites.append(site_of(context))
            return sites[0]

        def content(site: Site) -> Received:
            return read(form, message.content, site.forms.get(form))

        reply = respond(form, site, content, on_error)
        if paced and reply.form != egress.REFUSAL and form != HELLO and sites[0].mode.keys.budgeted:
            wait_until_public(started, sites[0].quantum_s)
        return egress.addressed(reply, message, sites[0].forms.get(reply.form) if sites else None)

    for message_type, form in wire.ASKS.items():
        if message_type == wire.END:
            continue  # the node's own matter (client/ending.py)
        category, _, action = message_type.partition(".")
        register = getattr(app, category)
        (register(action) if action else register())(partial(handle, form))
    return app


def respond(
    form: str, site_of: Callable[[], Site], content: Callable[[Site], Received], on_error: OnError = log_error
) -> Frame:
    """Answer one instruction or proposal; a failure is a refusal, and what must not leave goes to `on_error`.

    Args:
        content: reads what was asked, once the hospital is known: its study says which arrays are expected.
    """
    site = None
    try:
        site = site_of()
        site.on_failure = partial(on_error, site)
        return hello(site, content(site)) if form == HELLO else driven(releasing(form, site, content(site)), site.work)
    except Exception as error:
        return _refused(site, error, on_error)


def _refused(site: Site | None, error: Exception, on_error: OnError) -> Frame:
    with contextlib.suppress(Exception):  # a full disk under the log must not put its path into a reply
        on_error(site, error)
    return egress.refusal(error)


def hello(site: Site, received: Received) -> Frame:
    """Answer a proposal: the hospital takes part if the study is the very one that it approved."""
    proposal = received.fields
    if proposal["protocol"] != wire.PROTOCOL:
        raise WireError(f"hello: expected protocol {wire.PROTOCOL}, found {proposal['protocol']}; install one release")
    if proposal["study"] != site.study.canonical:
        raise WireError("hello: expected the study that this hospital approved, found another one")
    fields: dict[str, str | int] = {"protocol": wire.PROTOCOL, "site": site.name, "study_sha256": site.study.sha256}
    return egress.reply("hello reply", fields)


def releasing(form: str, site: Site, received: Received) -> Answering:
    """Answer an instruction with the release that it asks for: yield each fit, and return the reply."""
    kind = release_of(form)
    assert kind is not None
    if received.fields["study_sha256"] != site.study.sha256:
        raise WireError(f"{form}: expected the study that this hospital approved, found another one")
    request = Request(
        received.arrays,
        round=received.fields.get("round", 0),
        attempt=received.fields.get("attempt", 0),
        loaded=received.arrays.clear,
    )
    released = yield from site.releasing(kind.name, request)
    return egress.reply(kind.reply, {}, released, site.forms[kind.reply])


def guarded_releasing(
    form: str, site_of: Callable[[], Site], content: Callable[[Site], Received], on_error: OnError = log_error
) -> Answering:
    """Respond as `respond` does, for a caller that fits several hospitals at once."""
    site = None
    try:
        site = site_of()
        site.on_failure = partial(on_error, site)
        return (yield from releasing(form, site, content(site)))
    except Exception as error:
        return _refused(site, error, on_error)

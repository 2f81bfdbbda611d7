"""The hospital's Flower ClientApp: four handlers that read like the protocol.

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
from strategies.releases.base import Fit
from strategies.releases.registry import arrays_of

SiteOf = Callable[[Context], Site]
OnError = Callable[[Site | None, Exception], None]
Training = Generator[Fit, Arrays, Message]
log = logging.getLogger("archipel.client")


def log_error(site: Site | None, error: Exception) -> None:
    """What must not leave, for the hospital's own log; an unexpected error may say anything, its text stays out."""
    name = site.name if site else "a hospital"
    if isinstance(error, ArchipelError):
        log.error("%s: %s", name, error)
    else:
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error(
            "%s: unexpected %s (its text is not shown, it may name a patient)\n%s", name, type(error).__name__, where
        )


def make_app(site_of: SiteOf, on_error: OnError = log_error, *, paced: bool = False) -> ClientApp:
    """A ClientApp for the hospitals that `site_of` knows; `on_error` keeps what must not leave.

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
                if paced and site.study.private and handler is not hello:
                    wait_until_public(started, site.quantum_s)
                return reply
            except Exception as error:
                return _refused(message, site, error, on_error)

        return handle

    app.query("hello")(guarded(hello))
    app.train()(guarded(train))
    app.evaluate()(guarded(evaluate))
    app.query("statistics")(guarded(statistics))
    return app


def _refused(message: Message, site: Site | None, error: Exception, on_error: OnError) -> Message:
    with contextlib.suppress(Exception):  # a full disk under the log must not put its path into a reply
        on_error(site, error)
    return egress.refusal(message, error)


def hello(message: Message, site: Site) -> Message:
    """The coordinator proposes a study; the hospital takes part if it is the very one that it approved."""
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


def train(message: Message, site: Site) -> Message:
    """One round: the shared model in, this hospital's model out."""
    return driven(training(message, site, read("train", message.content, site.instructed)), site.work)


def training(message: Message, site: Site, request: Received) -> Training:
    """`train` for whoever fits several hospitals at once: ask for each fit, take its model, and return the reply."""
    if request.fields["study_sha256"] != site.study.sha256:
        raise WireError("train: expected the study that this hospital approved, found another one")
    trained = yield from site.fitting(
        request.fields["round"],
        request.arrays,
        loaded=request.arrays.clear,
        attempt=request.fields.get("attempt", 0),
    )
    return egress.reply(message, "train reply", {}, trained, site.parameters)


def guarded_training(
    message: Message, site_of: Callable[[], Site], received: Callable[[Site], Received], on_error: OnError = log_error
) -> Training:
    """`training` as the ClientApp guards it: a failure is a refusal, and what must not leave goes to `on_error`."""
    site = None
    try:
        site = site_of()
        site.on_failure = partial(on_error, site)
        return (yield from training(message, site, received(site)))
    except Exception as error:
        return _refused(message, site, error, on_error)


def evaluate(message: Message, site: Site) -> Message:
    """Once, after the last round: the final model in, a noisy histogram of its scores on the test patients out."""
    request = read("evaluate", message.content, site.parameters)
    if request.fields["study_sha256"] != site.study.sha256:
        raise WireError("evaluate: expected the study that this hospital approved, found another one")
    histogram = site.evaluate(request.arrays, request.fields.get("attempt", 0))
    return egress.reply(message, "evaluate reply", {}, histogram, arrays_of("evaluate reply", site.study))


def statistics(message: Message, site: Site) -> Message:
    """Once, in a study that trains nothing: how many patients have each value of each column, with noise."""
    request = read("statistics", message.content)
    if request.fields["study_sha256"] != site.study.sha256:
        raise WireError("statistics: expected the study that this hospital approved, found another one")
    counts = site.statistics(request.fields.get("attempt", 0))
    return egress.reply(message, "statistics reply", {}, counts, arrays_of("statistics reply", site.study))

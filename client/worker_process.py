"""The node's port to the worker: the process behind it, restarted when it has ended."""

import contextlib
import fcntl
import logging
import subprocess
from collections.abc import Sequence
from typing import IO, Protocol

from client.caps import CAP, Caps, told
from client.isolation import worker_variables
from client.surroundings import Surroundings
from client.worker import exactly, send
from configs import parts
from configs.errors import RunError, WireError
from configs.frame import Frame
from configs.site import SiteConfig

log = logging.getLogger("archipel.node")
PIPE_BYTES = 1 << 20  # between this process and the worker


class WorkerPort(Protocol):
    """The worker's interface as the node uses it; tests give it one without a process."""

    @property
    def alone(self) -> bool:
        """Return whether it left the network."""

    @property
    def fence(self) -> str:
        """Return the fence around it, in words."""

    def start(self) -> None:
        """Start it, unless it runs.

        Raises:
            RunError: it ended before it was ready.
        """

    def ask(self, request: Frame, max_bytes: int) -> tuple[Frame, Frame]:
        """Return what the hospital should know, and the reply, of at most so many bytes of arrays.

        Raises:
            RunError: the worker ended while it worked; it is started again for the next request.
            WireError: its answer is none.
        """

    def stop(self) -> None:
        """End it."""


class WorkerProcess:
    """The other process, started again when it has ended."""

    def __init__(self, config: SiteConfig, command: Sequence[str] = ()) -> None:
        """Prepare a worker. `command` starts another worker than ours; only tests have one."""
        self._config = config
        self._command = list(command) or parts.command("client.worker", str(config.folder))
        self.caps = Caps(config)
        self._process: subprocess.Popen[bytes] | None = None
        self._surroundings: Surroundings | None = None
        self.alone, self.fence = False, ""  # the fence around it, in words
        self._environment = parts.environment(worker_variables(config))  # `start` lets go of secrets in this process

    def start(self) -> None:
        """Start it, unless it runs.

        Raises:
            RunError: it ended before it was ready.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()  # it may have ended while nothing was asked, and its pipes are still open
        self._surroundings = Surroundings(self._config, self._environment)
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            self._command,
            cwd=self._config.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # a Ctrl-C in the terminal is the node's to handle
        )
        for pipe in (self._process.stdin, self._process.stdout):
            _widen(pipe)
        try:
            ready = self._read().fields
            self.alone, self.fence = bool(ready["alone"]), str(ready["fence"])
        except (EOFError, WireError):
            self.stop()
            raise RunError("the worker ended before it was ready; the node's log says why") from None

    @property
    def pid(self) -> int | None:
        """Return its process id, None where it does not run."""
        return self._process.pid if self._process else None

    def ask(self, request: Frame, max_bytes: int) -> tuple[Frame, Frame]:
        """Return what the hospital should know, and the reply.

        Raises:
            RunError: the worker ended while it worked; it is started again for the next request.
        """
        if self._surroundings is not None and (what := self._surroundings.replaced()):
            log.info("the worker is started anew: its fence does not follow what was replaced (%s)", what)
            self.stop()
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            capped = Frame(request.form, {**request.fields, CAP: told(self.caps.look().policy)}, request.arrays)
            send(self._process.stdin, capped)  # type: ignore[arg-type]
            capped.let_go()
            request.let_go()
            return self._read(), self._read(max_bytes)
        except (EOFError, BrokenPipeError):
            self.stop()
            raise RunError(
                "the worker ended while it worked (killed, or out of memory); what it had booked counts as spent"
            ) from None
        except WireError:
            self.stop()  # where its next answer would begin is unknown
            raise

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.kill()
            with contextlib.suppress(OSError):
                self._process.communicate()
        self._process = None

    def _read(self, max_bytes: int = 0) -> Frame:
        assert self._process is not None
        assert self._process.stdout is not None
        return Frame.read(exactly(self._process.stdout), max_bytes)  # type: ignore[arg-type]


def _widen(pipe: IO[bytes] | None) -> None:
    """Let a pipe hold as much as the kernel allows: a large model then takes a sixteenth of the turns."""
    if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

"""The probe of a kit at a hospital: in a process that can only compute, on made-up patients.

The kit's code runs there alone: that process opens no file, has no network, and sees neither keys nor patients.
"""

import json
import resource
import time
from dataclasses import dataclass

from configs.kit import KitFiles
from configs.shown import escaped

SIZE = 1 << 16  # bytes of the answer
SECONDS = 120.0


@dataclass(frozen=True)
class _Probe:
    """Runs the probe of one kit in a child."""

    kit: KitFiles

    def load(self, shared: bytes) -> None:
        """Take nothing more."""

    def answer(self, patient: bytes) -> bytes:
        """Return what the probe says of the kit's models, as JSON of a fixed size; no patient comes."""
        from strategies.kits.probed import results_of

        del patient
        try:
            results = results_of(self.kit, clock=time.perf_counter, memory_bytes=_most_bytes)
            lines = [f"{name}: {sentence}" for name, result in results.items() for sentence in result.sentences]
        except Exception as error:
            lines = [f"it cannot be opened: {type(error).__name__}: {error}"[:1000]]
        return json.dumps(lines).encode("ascii")[:SIZE].ljust(SIZE)


def _most_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _prepare(described: bytes) -> _Probe:
    from strategies.kits.probed import preload

    kit = KitFiles.of_wheel(described)
    preload(kit.modules)
    return _Probe(kit)


def probed(kit: KitFiles) -> str:
    """Return what the probe says of a kit here, a sentence a line."""
    from client.children.zygote import Zygote
    from configs.errors import RunError

    try:
        with Zygote(_prepare, seconds=SECONDS) as zygote:
            zygote.prepare(kit.wheel)
            answer = zygote.ask(b"no patient", SIZE, until=time.monotonic() + SECONDS)
    except RunError as error:
        return f"not here: {error}"
    return "\n".join(map(escaped, _sentences(answer)))


def _sentences(answer: bytes | None) -> list[str]:
    """Return what a child said, which may be anything: the kit's code ran there."""
    try:
        sentences = None if answer is None else json.loads(answer)
    except (ValueError, RecursionError):
        sentences = None
    if isinstance(sentences, list) and all(isinstance(sentence, str) for sentence in sentences):
        return sentences
    return ["it did not end well, or not in time, in a process of its own"]

"""One patient put through a module at a time, without a trace: what is drawn and kept for one is nothing to the next.

>>> layer = nn.Dropout()
>>> with as_it_was(layer, 1, torch.device("cpu")): first = layer(torch.ones(4))
>>> with as_it_was(layer, 1, torch.device("cpu")): first.equal(layer(torch.ones(4)))
True
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

_LAYERS: WeakKeyDictionary[nn.Module, list[nn.Module]] = WeakKeyDictionary()  # those with buffers


def seed_of(salt: bytes, x: Tensor, y: Tensor) -> int:
    """Return a seed that depends on one patient's rows and on what the step began with, and on nobody else."""
    digest = blake2b(salt, digest_size=8)
    digest.update(bytes_of(x))
    digest.update(bytes_of(y))
    return int.from_bytes(digest.digest(), "little") >> 1


def bytes_of(tensor: Tensor) -> memoryview:
    """Return what a tensor holds, without a copy where it lies together on the processor."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy()).reshape(-1).view(np.uint8).data


@contextmanager
def as_it_was(module: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Seed all chance while entered; afterwards put it back, and the module's buffers."""
    buffers = [(layer, name, buffer, buffer.clone()) for layer, name, buffer in _buffers(module)]
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        for generator in generators:  # torch.manual_seed would format a stack for a GPU that is not there
            generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        with torch.no_grad():
            for layer, name, buffer, before in buffers:
                layer._buffers[name] = buffer.copy_(before)


def _buffers(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    if module not in _LAYERS:
        _LAYERS[module] = [layer for layer in module.modules() if layer._buffers]
    for layer in _LAYERS[module]:
        yield from ((layer, name, buffer) for name, buffer in layer._buffers.items() if buffer is not None)

"""The PyTorch modules that stand for a kit's: its parameters sorted by name, its buffers the same before each record.

A module's own order of parameters depends on the kit; here it is that of the study's sorted list, as the wire has it.
Buffers that a module has, such as a running mean, are put back before each call: no record is told by another.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from configs.wire import ArraySpec


class _Sorted(nn.Module):
    """A module whose parameters are named as the study names them, in sorted order, and which shows no buffers."""

    _names: Mapping[str, nn.Parameter]

    def named_parameters(  # type: ignore[override]
        self, prefix: str = "", **options: Any
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters, sorted by name; with `recurse=False` those that are no layer's within it."""
        if not options.get("recurse", True):
            yield from super().named_parameters(prefix, recurse=False)
            return
        yield from ((f"{prefix}.{name}" if prefix else name, p) for name, p in self._names.items())

    def named_buffers(self, *_: object, **__: object) -> Iterator[tuple[str, Tensor]]:
        """Yield nothing: what changes there is put back."""
        yield from ()

    def state_dict(self, *_: Any, **__: Any) -> Any:
        """Return the parameters by name."""
        return {name: parameter.detach() for name, parameter in self._names.items()}

    def load_state_dict(self, state: Mapping[str, Any], *_: Any, **__: Any) -> None:  # type: ignore[override]
        """Copy the parameters in, every one of them."""
        with torch.no_grad():
            for name, parameter in self._names.items():
                parameter.copy_(state[name])


class Opened(_Sorted):
    """A kit's module in this process."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.__dict__["_names"] = dict(sorted(inner.named_parameters()))
        self.__dict__["_before"] = [(buffer, buffer.clone()) for buffer in inner.buffers()]

    def forward(self, x: Tensor) -> Tensor:
        """Return what the kit's module makes of one patient's records."""
        with torch.no_grad():
            for buffer, before in self.__dict__["_before"]:
                buffer.copy_(before)
        return self.inner(x)  # type: ignore[no-any-return]


class Unopened(_Sorted):
    """The parameters of a kit's module; the kit is opened by the first record.

    Args:
        parameters: as the study lists them.
        build: opens the kit and returns its module.
    """

    def __init__(self, parameters: Mapping[str, ArraySpec], build: Callable[[], nn.Module]) -> None:
        super().__init__()
        named = {name: nn.Parameter(torch.zeros(shape)) for name, (shape, _) in parameters.items()}
        for place, parameter in enumerate(named.values()):
            self.register_parameter(f"p{place}", parameter)
        self.__dict__.update(_names=named, _build=build, _inner=None)

    def open(self) -> None:
        """Open the kit, which may draw chance: before the patient's own is seeded."""
        if self.__dict__["_inner"] is None:
            self.__dict__["_inner"] = self.__dict__["_build"]()

    def forward(self, x: Tensor) -> Tensor:
        """Return what the kit's module makes of one patient's records."""
        self.open()
        inner: nn.Module = self.__dict__["_inner"].train(self.training)
        buffers = {name: buffer.clone() for name, buffer in inner.named_buffers()}
        return torch.func.functional_call(inner, {**self._names, **buffers}, (x,))  # type: ignore[no-any-return]

"""The arrays of layers by name, without PyTorch: what networks declare before anything is built.

>>> convolution("stem", 16, 1, (3, 3), bias=False)
{'stem.weight': ((16, 1, 3, 3), 'float32')}
"""

from configs.wire import ArraySpec

Specs = dict[str, ArraySpec]


def convolution(name: str, out: int, into: int, kernel: tuple[int, ...], *, bias: bool = True) -> Specs:
    """Return a convolution's weight, and its bias."""
    weight: Specs = {f"{name}.weight": ((out, into, *kernel), "float32")}
    return weight | (vector(f"{name}.bias", out) if bias else {})


def norm(name: str, width: int) -> Specs:
    """Return the scale and the shift of a GroupNorm."""
    return vector(f"{name}.weight", width) | vector(f"{name}.bias", width)


def linear(name: str, out: int, into: int) -> Specs:
    """Return a linear layer's weight and bias."""
    return convolution(name, out, into, ())


def vector(name: str, size: int) -> Specs:
    """Return one array of one axis."""
    return {name: ((size,), "float32")}

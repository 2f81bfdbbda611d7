"""Arrays that record what NumPy does with them, as the nodes of a graph.

The very functions that make inputs of columns and predictions of outputs are called with them, so that an exported
graph holds the operations that a hospital's training and judging hold, of whatever kind of column or task. They know
what those functions use and no more: anything else is a RunError, so that no graph is half right.

>>> graph = Graph()
>>> age = graph.input("age", "double")
>>> inside = np.clip(age, 20.0, 90.0)
>>> [node.op for node in graph.needed([(inside - 20.0) / 70.0])]
['Clip', 'Sub', 'Div']
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from configs.errors import RunError

ROWS = -1  # the length of the first axis, known only where the graph runs
Shape = tuple[int, ...]
_DTYPES: Mapping[str, Any] = {
    "double": np.float64,
    "float": np.float32,
    "int64": np.int64,
    "bool": np.bool_,
    "string": np.object_,
}
_NAMES = {np.dtype(np.float64): "double", np.dtype(np.float32): "float", np.dtype(np.int64): "int64"}
_ARITHMETIC: Mapping[Any, str] = {
    **{np.add: "Add", np.subtract: "Sub", np.multiply: "Mul", np.divide: "Div", np.maximum: "Max", np.minimum: "Min"},
    np.power: "Pow",
}
_COMPARISONS: Mapping[Any, str] = {
    **{np.equal: "Equal", np.less: "Less", np.greater: "Greater", np.less_equal: "LessOrEqual"},
    np.greater_equal: "GreaterOrEqual",
}
_LOGICAL: Mapping[Any, str] = {np.logical_or: "Or", np.bitwise_or: "Or", np.logical_and: "And", np.bitwise_and: "And"}
_OF_ONE: Mapping[Any, str] = {np.absolute: "Abs", np.negative: "Neg", np.floor: "Floor", np.rint: "Round"}
_TESTS: Mapping[Any, str] = {np.isnan: "IsNaN", np.isinf: "IsInf"}


@dataclass(frozen=True)
class Node:
    """One operation: ONNX's name of it, the names of what it reads and makes, and its attributes."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Graph:
    """Nodes in the order in which they were recorded, the inputs that they begin with, and constants."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.nodes: list[Node] = []
        self.inputs: dict[str, str] = {}  # name -> kind of value
        self.constants: dict[str, np.ndarray[Any, Any]] = {}

    def input(self, name: str, kind: str) -> "Recorded":
        """Return a column of raw values: (rows,) of `double` or `string`."""
        self.inputs[name] = kind
        return Recorded(self, name, kind, (ROWS,))

    def constant(self, value: Any, kind: str) -> "Recorded":
        """Return a constant of a kind."""
        array: np.ndarray[Any, Any] = np.asarray(value, _DTYPES[kind])
        name = f"constant {len(self.constants)}"
        self.constants[name] = array
        return Recorded(self, name, kind, array.shape)

    def node(self, op: str, inputs: Sequence["Recorded"], kind: str, shape: Shape, **attributes: Any) -> "Recorded":
        """Return what a new node makes."""
        name = f"value {len(self.nodes)}"
        self.nodes.append(Node(op, tuple(entry.name for entry in inputs), name, attributes))
        return Recorded(self, name, kind, shape)

    def needed(self, outputs: Iterable["Recorded"]) -> list[Node]:
        """Return the nodes that these values need, in order."""
        wanted = {output.name for output in outputs}
        kept = []
        for node in reversed(self.nodes):
            if node.output in wanted:
                kept.append(node)
                wanted.update(node.inputs)
        return kept[::-1]


class Recorded(NDArrayOperatorsMixin):
    """A value of the graph. `kind` is double, float, int64, bool or string; the first axis is the rows'."""

    def __init__(self, graph: Graph, name: str, kind: str, shape: Shape) -> None:
        """Name a value that is in the graph."""
        self.graph, self.name, self.kind, self.shape = graph, name, kind, shape

    @property
    def ndim(self) -> int:
        """Return the number of axes."""
        return len(self.shape)

    def __array__(self, *_: Any, **_named: Any) -> Any:
        """Refuse to become numbers: there are none yet."""
        raise RunError("export: expected arithmetic that a graph can hold, found a step that needs the numbers")

    def __int__(self) -> int:
        """Return 0 for a count of rows: people read it, no graph does."""
        return 0

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> "Recorded":
        """Record an element-wise function."""
        options.pop("dtype", None)
        if method != "__call__" or any(value is not None for value in options.values()):
            raise _unknown(f"{ufunc.__name__}.{method}")
        if ufunc in _OF_ONE:
            return self._node(_OF_ONE[ufunc], [self], self.kind, self.shape)
        if ufunc in _TESTS:
            return self._node(_TESTS[ufunc], [self], "bool", self.shape)
        if ufunc in (np.logical_not, np.invert):
            return self._node("Not", [self], "bool", self.shape)
        if len(inputs) != 2:
            raise _unknown(ufunc.__name__)
        left, right = _promoted(*(self._constant(entry) for entry in inputs))
        shape = np.broadcast_shapes(_plain(left.shape), _plain(right.shape))
        if ufunc is np.not_equal:
            equal = self._node("Equal", [left, right], "bool", _rows(shape))
            return self._node("Not", [equal], "bool", _rows(shape))
        for table, kind in ((_ARITHMETIC, left.kind), (_COMPARISONS, "bool"), (_LOGICAL, "bool")):
            if ufunc in table:
                return self._node(table[ufunc], [left, right], kind, _rows(shape))
        raise _unknown(ufunc.__name__)

    def __array_function__(self, function: Any, _types: Any, args: Any, kwargs: Any) -> "Recorded":
        """Record another of NumPy's functions."""
        if function not in _FUNCTIONS:
            raise _unknown(function.__name__)
        return _FUNCTIONS[function](self.graph, *args, **kwargs)

    def __exact__(self, name: str) -> "Recorded":
        """Record one of strategies/exact/functions.py's."""
        if name == "softmax":
            return self._node("Softmax", [self], self.kind, self.shape, axis=-1)
        ops = {"sigmoid": "Sigmoid", "exponential": "Exp", "logarithm": "Log"}
        return self._node(ops[name], [self], self.kind, self.shape)

    def __getitem__(self, places: Any) -> "Recorded":
        """Return slices, single columns and new axes."""
        value, dropped = self, list[int]()
        every = places if isinstance(places, tuple) else (places,)
        if Ellipsis in every:
            at, used = every.index(Ellipsis), sum(place not in (None, Ellipsis) for place in every)
            every = (*every[:at], *[slice(None)] * (self.ndim - used), *every[at + 1 :])
        for axis, place in enumerate(every):
            if place is None:
                shape = (*value.shape[:axis], 1, *value.shape[axis:])
                value = value._node("Unsqueeze", [value, self.graph.constant([axis], "int64")], self.kind, shape)
            elif isinstance(place, int):
                value = value._sliced(axis, slice(place, place + 1 or None))
                dropped.append(axis)
            else:
                value = value._sliced(axis, place)
        if dropped:
            shape = tuple(size for at, size in enumerate(value.shape) if at not in dropped)
            value = value._node("Squeeze", [value, self.graph.constant(dropped, "int64")], self.kind, shape)
        return value

    def __setitem__(self, mask: "Recorded", value: float) -> None:
        """Take a value where a mask holds: from here on this is what results."""
        self.name = _where(self.graph, mask, value, self).name

    def astype(self, dtype: Any) -> "Recorded":
        """Return the values as another kind."""
        if (kind := _NAMES.get(np.dtype(dtype), "")) == "":
            raise _unknown(f"numbers as {np.dtype(dtype)}")
        codes = {"float": 1, "int64": 7, "double": 11}
        return self if kind == self.kind else self._node("Cast", [self], kind, self.shape, to=codes[kind])

    def reshape(self, *shape: Any) -> "Recorded":
        """Return the values in another shape; the first axis is the rows'."""
        sizes = tuple(shape[0]) if isinstance(shape[0], tuple) else shape
        return self._node("Reshape", [self, self.graph.constant(sizes, "int64")], self.kind, tuple(sizes))

    def transpose(self, *axes: int) -> "Recorded":
        """Return the values with their axes in another order."""
        shape = tuple(self.shape[axis] for axis in axes)
        return self._node("Transpose", [self], self.kind, shape, perm=list(axes))

    def sum(self, axis: int | None = None) -> "Recorded":
        """Return sums over an axis."""
        return self._reduced("ReduceSum", axis, keep=False)

    def max(self, axis: int | None = None, *, keepdims: bool = False) -> "Recorded":
        """Return the largest along an axis."""
        return self._reduced("ReduceMax", axis, keep=keepdims)

    def times(self, matrix: np.ndarray[Any, Any]) -> "Recorded":
        """Return the matrix product with a constant: (rows, n) times (n, m)."""
        constant = self.graph.constant(matrix, self.kind)
        return self._node("MatMul", [self, constant], self.kind, (self.shape[0], constant.shape[1]))

    def _reduced(self, op: str, axis: int | None, *, keep: bool) -> "Recorded":
        if axis is None:  # of all rows: for people, and never part of what is needed
            return self._node(op, [self], self.kind, (), keepdims=0)
        at = axis % self.ndim
        shape = (*self.shape[:at], *([1] if keep else []), *self.shape[at + 1 :])
        axes = self.graph.constant([at], "int64")
        return self._node(op, [self, axes], self.kind, shape, keepdims=int(keep))

    def _sliced(self, axis: int, part: slice) -> "Recorded":
        if part == slice(None):
            return self
        if part.step is not None or axis == 0:
            raise _unknown("a part of the rows")
        start, stop, _ = part.indices(self.shape[axis])
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        bounds = [self.graph.constant([number], "int64") for number in (start, stop, axis)]
        return self._node("Slice", [self, *bounds], self.kind, shape)

    def _constant(self, value: Any) -> "Recorded":
        if isinstance(value, Recorded):
            return value
        whole = isinstance(value, float) and self.kind in ("bool", "int64")
        return self.graph.constant(value, "double" if whole else self.kind)

    def _node(self, op: str, inputs: "Sequence[Recorded]", kind: str, shape: Shape, **attributes: Any) -> "Recorded":
        return self.graph.node(op, inputs, kind, shape, **attributes)


def _promoted(left: Recorded, right: Recorded) -> tuple[Recorded, Recorded]:
    """Return two values as one kind, the wider of the two."""
    kinds = ("bool", "int64", "float", "double", "string")
    wider = max(left.kind, right.kind, key=kinds.index)
    one, other = (value if value.kind == wider else value.astype(_DTYPES[wider]) for value in (left, right))
    return one, other


def _plain(shape: Shape) -> Shape:
    """Return a shape with a length of its own for the rows, which no constant has."""
    return tuple(1 << 40 if size == ROWS else size for size in shape)


def _rows(shape: Shape) -> Shape:
    return tuple(ROWS if size == 1 << 40 else size for size in shape)


def _unknown(what: str) -> RunError:
    return RunError(f"export: expected arithmetic that a graph can hold, found {what}; export as safetensors instead")


def _where(graph: Graph, mask: Recorded, left: Any, right: Any) -> Recorded:
    kind = next((entry.kind for entry in (left, right) if isinstance(entry, Recorded)), "double")
    sides = [e if isinstance(e, Recorded) else graph.constant(e, kind) for e in (left, right)]
    shape = np.broadcast_shapes(*(_plain(entry.shape) for entry in (mask, *sides)))
    return graph.node("Where", [mask, *sides], kind, _rows(shape))


def _clip(graph: Graph, values: Recorded, low: float, high: float) -> Recorded:
    bounds = [graph.constant(bound, values.kind) for bound in (low, high)]
    return graph.node("Clip", [values, *bounds], values.kind, values.shape)


def _concatenate(graph: Graph, parts: Sequence[Recorded], axis: int = 0) -> Recorded:
    if axis == 0:
        raise _unknown("rows that are put one after the other")
    first, width = parts[0], sum(part.shape[axis] for part in parts)
    shape = (*first.shape[:axis], width, *first.shape[axis + 1 :])
    return graph.node("Concat", parts, first.kind, shape, axis=axis)


def _stack(graph: Graph, parts: Sequence[Recorded], axis: int = 0) -> Recorded:
    places = (*[slice(None)] * axis, None)
    return _concatenate(graph, [part[places] for part in parts], axis)


def _cumsum(graph: Graph, values: Recorded, axis: int) -> Recorded:
    return graph.node("CumSum", [values, graph.constant(axis, "int64")], values.kind, values.shape)


def _cumprod(graph: Graph, values: Recorded, axis: int) -> Recorded:
    """Return products of the first, the first two, ...: ONNX has none, so each is a node."""
    parts = [values._sliced(axis, slice(at, at + 1)) for at in range(values.shape[axis])]
    for at in range(1, len(parts)):
        parts[at] = parts[at - 1] * parts[at]
    return _concatenate(graph, parts, axis)


def _filled(number: float) -> Callable[[Graph, Recorded], Recorded]:
    return lambda _graph, values: values * 0.0 + number


_FUNCTIONS: Mapping[Any, Callable[..., Recorded]] = {
    np.where: _where,
    np.clip: _clip,
    np.concatenate: _concatenate,
    np.stack: _stack,
    np.cumsum: _cumsum,
    np.cumprod: _cumprod,
    np.ones_like: _filled(1.0),
    np.zeros_like: _filled(0.0),
}

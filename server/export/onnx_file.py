"""A recorded graph as an ONNX file. Needs the package `onnx`, which `archipel[onnx]` installs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.errors import RunError
from server.export.recording import ROWS, Graph, Recorded

OPSET, IR_VERSION = 19, 9  # Equal knows texts from 19 on
ROWS_NAME = "rows"


def to_bytes(graph: Graph, prediction: Recorded, name: str, about: Mapping[str, str]) -> bytes:
    """Return the file of a graph with one output, `prediction`.

    Args:
        about: texts that are kept in the file.

    Raises:
        RunError: the package is not installed, or the graph is not one that it takes.
    """
    try:
        import onnx
    except ImportError:
        raise RunError("export: ONNX needs the package onnx; install it: pip install 'archipel[onnx]'") from None
    helper, kinds = onnx.helper, onnx.TensorProto
    types = {"double": kinds.DOUBLE, "float": kinds.FLOAT, "int64": kinds.INT64, "string": kinds.STRING}
    inputs = [helper.make_tensor_value_info(column, types[kind], [ROWS_NAME]) for column, kind in graph.inputs.items()]
    nodes = graph.needed([prediction])
    used = {each for node in nodes for each in node.inputs}
    constants = [_constant(onnx, key, array) for key, array in graph.constants.items() if key in used]
    last = helper.make_node("Identity", [prediction.name], ["prediction"])
    shape = [ROWS_NAME if size == ROWS else size for size in prediction.shape]
    output = helper.make_tensor_value_info("prediction", types[prediction.kind], shape)
    made = [helper.make_node(n.op, list(n.inputs), [n.output], **n.attributes) for n in nodes]
    body = helper.make_graph([*made, last], name, inputs, [output], constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="archipel")
    model.ir_version = IR_VERSION
    helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _constant(onnx: Any, name: str, array: np.ndarray[Any, Any]) -> Any:
    if array.dtype == object:
        texts: Sequence[bytes] = [str(text).encode() for text in array.ravel()]
        return onnx.helper.make_tensor(name, onnx.TensorProto.STRING, array.shape, texts)
    return onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)

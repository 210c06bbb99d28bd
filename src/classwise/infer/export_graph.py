"""ONNX graphs that are written by hand: operators as calls, and several graphs joined to one model."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Value = str | npt.NDArray[Any] | np.generic
"""A value of a graph by its name, or a constant."""


class Graph:
    """The nodes of an ONNX graph in the making. `graph("Add", a, b)` adds an operator and gives the name of its output;
    constants may stand in place of names."""

    def __init__(self, prefix: str, numbers: Iterator[int] | None = None) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self._numbers = itertools.count() if numbers is None else numbers

    def __call__(self, operator: str, *inputs: Value, **attributes: Any) -> str:
        from onnx import helper

        output = self._new_name()
        names = [value if isinstance(value, str) else self._constant(value) for value in inputs]
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def cast(self, value: Value, dtype: npt.DTypeLike) -> str:
        """The value in another type."""
        from onnx import helper

        return self("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def shape(self, *lengths: Value) -> str:
        """One vector of int64 out of lengths, each a scalar."""
        return self("Concat", *(self("Reshape", length, ints([1])) for length in lengths), axis=0)

    def where(
        self,
        condition: Value,
        then: Callable[["Graph"], str],
        otherwise: Callable[["Graph"], str],
        dtype: npt.DTypeLike = np.uint8,
    ) -> str:
        """The output of one of two sub-graphs, which may use all values that are there already; the other is not
        computed. `dtype`: of the output."""
        branches = [self._branch(build, dtype) for build in (then, otherwise)]
        return self("If", condition, then_branch=branches[0], else_branch=branches[1])

    def model(
        self, inputs: Sequence[Any], outputs: Mapping[str, str], infos: Sequence[Any], like: Any
    ) -> Any:
        """A model whose outputs have the names that `outputs` gives to values; `infos`: what ONNX is to know of them.
        Its versions are those of the model `like`."""
        from onnx import helper

        for name, value in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name], name=f"{self.prefix}{name}"))
        graph = helper.make_graph(self.nodes, self.prefix.strip("/"), inputs, infos)
        return helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)

    def _branch(self, build: Callable[["Graph"], str], dtype: npt.DTypeLike) -> Any:
        from onnx import helper

        graph = Graph(self.prefix, self._numbers)
        output = graph("Identity", build(graph))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        info = helper.make_tensor_value_info(output, kind, None)
        return helper.make_graph(graph.nodes, self._new_name(), [], [info])

    def _constant(self, value: npt.NDArray[Any] | np.generic) -> str:
        from onnx import helper, numpy_helper

        name = self._new_name()
        tensor = numpy_helper.from_array(np.asarray(value), name=name)
        self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
        return name

    def _new_name(self) -> str:
        return f"{self.prefix}{next(self._numbers)}"


def ints(values: int | Sequence[int]) -> npt.NDArray[np.int64]:
    """A constant of int64."""
    return np.array(values, dtype=np.int64)


def merged(first: Any, second: Any, names: Mapping[str, str], prefix: str) -> Any:
    """Two models as one: `names` says which output of the first is which input of the second, whose inner values get
    the prefix, so that none has the name of another."""
    from onnx import compose

    renamed = compose.add_prefix(
        second, prefix, rename_inputs=False, rename_outputs=False, rename_functions=False
    )
    return compose.merge_models(first, renamed, io_map=list(names.items()))

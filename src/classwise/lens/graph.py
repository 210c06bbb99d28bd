"""The chain of `grad_fn` from a loss to the leaves, sorted into the modules whose forward passes have made it.

Autograd numbers the operations of a thread in the order in which they run. Hooks around the forward pass of every
module take down that number at its beginning and its end, so each node belongs to the innermost module in between. Such
hooks change neither the numbers nor the graph.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
LEAF = "AccumulateGrad"
MODEL = "model"
"""The name of the block of the whole forward pass."""


@dataclass(frozen=True)
class Leaf:
    """A parameter at the end of the chain, whose `.grad` the backward pass adds to."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Op:
    """A node of the graph. `name` as torch has it; `shape`: that of its output in the forward pass, and so of the
    gradient that comes to it; `inputs`: the numbers of the nodes that it passes gradients on to."""

    number: int
    name: str
    shape: Shape
    leaves: tuple[Leaf, ...]
    inputs: tuple[int, ...]


@dataclass
class Block:
    """A module and what its forward pass consisted of. `first`, `end`: the numbers of its operations, from `first` to
    below `end`. `name` is that within the model, `kind` its class."""

    name: str
    kind: str
    first: int
    end: int = 0
    taken: Shape = ()
    given: Shape = ()
    ops: list[Op] = field(default_factory=list)
    children: list["Block"] = field(default_factory=list)

    @property
    def numbers(self) -> set[int]:
        """The numbers of all nodes inside."""
        return {op.number for op in self.all_ops()}

    def all_ops(self) -> Iterator[Op]:
        """All nodes inside, also those of modules within."""
        yield from self.ops
        for child in self.children:
            yield from child.all_ops()


@contextlib.contextmanager
def noting_blocks(model: nn.Module) -> Iterator[list[Block]]:
    """The forward passes of the model inside the block, each as a Block without its operations."""
    noted: list[Block] = []
    open_blocks: list[Block] = []
    handles: list[Any] = []

    def enter(name: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        block = Block(name, type(module).__name__, _next_number(), taken=_shape(arguments))
        (open_blocks[-1].children if open_blocks else noted).append(block)
        open_blocks.append(block)

    def leave(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        block = open_blocks.pop()
        block.end = _next_number()
        block.given = _shape(result)

    for name, module in model.named_modules():
        handles.append(
            module.register_forward_pre_hook(lambda module, given, name=name: enter(name, module, given))
        )
        handles.append(module.register_forward_hook(leave))
    try:
        yield noted
    finally:
        for handle in handles:
            handle.remove()


def graph_of(loss: Tensor, forward: Block | None, heads: Sequence[str], names: Mapping[int, str]) -> Block:
    """The graph behind `loss` as a Block named `loss` and, inside it, that of the model's forward pass.

    `forward`: its noted forward pass, None where it is compiled, and then not told apart. `heads`: the targets in the
    order of the model's heads; `names`: those of the parameters by their ids.
    """
    ops = _ops(loss, names)
    root = Block("loss", "Criterion", 0, end=max(ops, default=0) + 1, given=tuple(loss.shape))
    if forward is None:
        root.ops = list(ops.values())
        return root
    forward.name = MODEL
    for op in ops.values():
        _innermost(forward, op.number, root).ops.append(op)
    _drop_empty(forward)
    root.children = [*_losses_of_heads(root, forward, heads), forward]
    return root


def count_nodes(outputs: Sequence[Tensor]) -> int:
    """Nodes of the graph behind some tensors, without the leaves."""
    return len({node for node in _nodes(outputs) if not _is_leaf(node)})


def _next_number() -> int:
    number: int = torch.autograd._get_sequence_nr()  # type: ignore[attr-defined]
    return number


def _shape(value: Any) -> Shape:
    """That of the first tensor in it; empty where there is none."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, tuple | list):
        return next((shape for item in value if (shape := _shape(item))), ())
    return ()


def _nodes(outputs: Sequence[Tensor]) -> Iterator[Any]:
    """Every node that can be reached, once."""
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _is_leaf(node: Any) -> bool:
    return str(node.name()).endswith(LEAF)


def _ops(loss: Tensor, names: Mapping[int, str]) -> dict[int, Op]:
    """The nodes by number, in the order of the backward pass."""
    ops: dict[int, Op] = {}
    for node in _nodes([loss]):
        if _is_leaf(node):
            continue
        following = [one for one, _ in node.next_functions if one is not None]
        leaves = [one.variable for one in following if _is_leaf(one)]
        metadata = node._input_metadata
        number = int(node._sequence_nr())
        ops[number] = Op(
            number=number,
            name=node.name().rpartition("::")[2],
            shape=tuple(metadata[0].shape) if metadata else (),
            leaves=tuple(Leaf(names.get(id(leaf), "a tensor"), tuple(leaf.shape)) for leaf in leaves),
            inputs=tuple(int(one._sequence_nr()) for one in following if not _is_leaf(one)),
        )
    return dict(sorted(ops.items(), reverse=True))


def _innermost(block: Block, number: int, otherwise: Block) -> Block:
    """The innermost block that has made the node; `otherwise` if it was not made in this one."""
    if not block.first <= number < block.end:
        return otherwise
    for child in block.children:
        found = _innermost(child, number, otherwise)
        if found is not otherwise:
            return found
    return block


def _drop_empty(block: Block) -> None:
    """Forget modules without a node: those that are frozen, or do nothing in training."""
    for child in block.children:
        _drop_empty(child)
    block.children = [child for child in block.children if child.ops or child.children]


def _losses_of_heads(root: Block, forward: Block, heads: Sequence[str]) -> list[Block]:
    """The part of the loss that leads to one head alone, for each of several heads; taken out of the root's own."""
    owner = {
        number: heads[int(child.name.rpartition(".")[2])]
        for child in forward.children
        if child.name.startswith("heads.")
        for number in child.numbers
    }
    if len(set(owner.values())) < 2:
        return []

    # From the model to the loss: a node whose inputs lead to one head belongs to that head's loss.
    blocks: dict[str, Block] = {}
    shared: list[Op] = []
    for op in sorted(root.ops, key=lambda op: op.number):
        owners = {owner.get(number, "") for number in op.inputs}
        if len(owners) == 1 and (name := owners.pop()):
            owner[op.number] = name
            blocks.setdefault(name, Block(f"loss of {name}", "", op.number)).ops.insert(0, op)
        else:
            shared.insert(0, op)
    for block in blocks.values():
        block.given = block.ops[0].shape
        block.end = block.ops[0].number + 1
    root.ops = shared
    return sorted(blocks.values(), key=lambda block: -block.end)

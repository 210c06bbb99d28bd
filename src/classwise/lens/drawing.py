"""The page's drawings: the chain of grad_fn module by module, histograms, the learning rate, gradients side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from classwise.lens.graph import MODEL, Block, Leaf, Op, Shape
from classwise.report import svg
from classwise.report.charts import Series, line_chart
from classwise.report.names import short_number
from classwise.report.svg import Axis, Point

WIDTH = 362
BOX_LEFT, BOX_RIGHT, BOX_HEIGHT = 46, 214, 36
GAP = 18  # between two boxes
LEAF_LEFT = 226
FEW = 3  # operations up to which a module without modules in it is drawn as one box


@dataclass(frozen=True)
class DrawnBlock:
    """A module that can be folded: its own operations and the modules in it as boxes, then these modules."""

    title: str
    note: str
    drawing: Markup
    children: tuple["DrawnBlock", ...]
    is_open: bool


@dataclass(frozen=True)
class _Item:
    """A box: an operation, or a module with all that is in it."""

    title: str
    note: str
    numbers: frozenset[int]
    ops: tuple[Op, ...]
    leaves: tuple[Leaf, ...]
    is_module: bool
    last: int


def draw_block(block: Block, titles: dict[str, str], depth: int = 0) -> DrawnBlock:
    """A block and all that is in it. `titles`: what to write in place of some names."""
    ops = len(block.numbers)
    shape = f" · {shape_text(block.taken)} → {shape_text(block.given)}" if block.taken else ""
    kind = f"{block.kind} · " if block.kind else ""
    return DrawnBlock(
        title=titles.get(block.name, block.name),
        note=f"{kind}{ops} operation{'s' if ops > 1 else ''}{shape}",
        drawing=_level(block, titles),
        children=tuple(
            draw_block(child, titles, depth + 1)
            for child in sorted(block.children, key=lambda child: -child.end)
            if not _is_small(child)
        ),
        is_open=not depth or block.name == MODEL,
    )


def shape_text(shape: Shape) -> str:
    """`32 × 3 × 64 × 64`; a single number is a scalar."""
    return "×".join(map(str, shape)) if shape else "scalar"


def _within(block: Block, child: Block) -> str:
    """The child's name without that of the block."""
    name = child.name.removeprefix("backbone.") if block.name == MODEL else child.name
    return name.removeprefix(f"{block.name}.")


def _is_small(block: Block) -> bool:
    return not block.children and len(block.ops) <= FEW


def _items(block: Block, titles: dict[str, str]) -> list[_Item]:
    """In the order of the backward pass."""
    items = [
        _Item(
            title=op.name,
            note=shape_text(op.shape),
            numbers=frozenset({op.number}),
            ops=(op,),
            leaves=op.leaves,
            is_module=False,
            last=op.number,
        )
        for op in block.ops
    ]
    for child in block.children:
        ops = tuple(child.all_ops())
        small = _is_small(child)
        title = titles.get(child.name, _within(block, child))
        items.append(
            _Item(
                title=f"{title} · {child.kind}" if child.kind else title,
                note=f"{ops[0].name} {shape_text(ops[0].shape)}"
                if small
                else f"{len(ops)} op{'' if len(ops) == 1 else 's'} · {shape_text(child.given)}",
                numbers=frozenset(op.number for op in ops),
                ops=ops,
                leaves=tuple(leaf for op in ops for leaf in op.leaves) if small else (),
                is_module=not small,
                last=max(op.number for op in ops),
            )
        )
    return sorted(items, key=lambda item: -item.last)


def _level(block: Block, titles: dict[str, str]) -> Markup:
    """The boxes of one level from top to bottom, with an arrow for every way that gradients go between them."""
    items = _items(block, titles)
    place_of = {number: place for place, item in enumerate(items) for number in item.numbers}
    leaves_out = False
    edges: set[tuple[int, int]] = set()
    for place, item in enumerate(items):
        for op in item.ops:
            for number in op.inputs:
                target = place_of.get(number, len(items))
                leaves_out |= target == len(items)
                if target != place:
                    edges.add((place, target))

    # Arrows first, so that boxes lie on top of them.
    tops = [10 + place * (BOX_HEIGHT + GAP) for place in range(len(items) + 1)]
    parts = [_edge(tops, start, end) for start, end in sorted(edges)]
    parts += [_box(item, tops[place]) for place, item in enumerate(items)]
    height = tops[-1] - GAP + 8
    if leaves_out:
        parts.append(svg.text((BOX_LEFT + BOX_RIGHT) / 2, tops[-1] + 14, "what comes before", "middle"))
        height = tops[-1] + 22
    return svg.figure(WIDTH, height, title=f"Operations of {block.name or 'the model'}", parts=parts)


def _box(item: _Item, top: float) -> Markup:
    style = "box module" if item.is_module else "box"
    width = BOX_RIGHT - BOX_LEFT
    shapes = [
        Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="5"/>').format(
            style, BOX_LEFT, top, width, BOX_HEIGHT
        ),
        svg.text(BOX_LEFT + 9, top + 15, svg.fit(item.title, width - 12), "label"),
        svg.text(BOX_LEFT + 9, top + 29, svg.fit(item.note, width - 12), ""),
    ]
    shown = item.leaves[:2]
    for place, leaf in enumerate(shown):
        more = f" +{len(item.leaves) - 2}" if place == 1 and len(item.leaves) > 2 else ""
        middle = top + BOX_HEIGHT / 2 + (place - (len(shown) - 1) / 2) * 17
        text = f"{leaf.name.rpartition('.')[2]} {shape_text(leaf.shape)}{more}"
        shapes += [
            svg.line("leafline", (BOX_RIGHT, middle), (LEAF_LEFT - 2, middle)),
            svg.circle("leafdot", (LEAF_LEFT, middle), 3),
            svg.text(LEAF_LEFT + 7, middle + 4, svg.fit(text, WIDTH - LEAF_LEFT - 7), "leaf"),
        ]
    leaves = "".join(f"\n.grad of {leaf.name} {shape_text(leaf.shape)}" for leaf in item.leaves)
    return svg.titled(f"{item.title}\n{item.note}{leaves}", shapes)


def _edge(tops: Sequence[float], start: int, end: int) -> Markup:
    """From box to box: straight to the next one, else in an arc on the left."""
    y, target = tops[start] + BOX_HEIGHT, tops[end]
    if end == start + 1:
        x = (BOX_LEFT + BOX_RIGHT) / 2
        return svg.line("flow", (x, y), (x, target - 4)) + _arrow(x, target, down=True)
    from_y, to_y = tops[start] + BOX_HEIGHT / 2, tops[end] + (BOX_HEIGHT / 2 if end < len(tops) - 1 else 10)
    bend = BOX_LEFT - min(40, 14 + 6 * abs(end - start))
    path = f"M{BOX_LEFT} {from_y:g}C{bend} {from_y:g} {bend} {to_y:g} {BOX_LEFT - 5} {to_y:g}"
    return Markup('<path class="flow" d="{}"/>').format(path) + _arrow(BOX_LEFT, to_y, down=False)


def _arrow(x: float, y: float, down: bool) -> Markup:
    points = f"{x - 4:g},{y - 6:g} {x + 4:g},{y - 6:g} {x:g},{y:g}"
    if not down:
        points = f"{x - 6:g},{y - 4:g} {x - 6:g},{y + 4:g} {x:g},{y:g}"
    return Markup('<polygon class="tip" points="{}"/>').format(points)


def histogram(counts: Sequence[int], title: str) -> Markup:
    """Bars as one path, 120 by 26 pixels; heights by the root of the counts, so that few are seen beside many."""
    if not counts:
        return Markup("")
    width, height = 120, 26
    step, most = width / len(counts), max(counts) ** 0.5 or 1.0
    bars = "".join(
        f"M{place * step:.1f} {height}v{-(count**0.5) / most * height:.1f}h{step - 0.6:.1f}V{height}z"
        for place, count in enumerate(counts)
        if count
    )
    shape = Markup(
        '<svg class="histogram" viewBox="0 0 {w} {h}" role="img" aria-label="{title}"><title>{title}</title>'
        '<path class="p0" d="{bars}"/><line class="axis" x1="0" x2="{w}" y1="{h}" y2="{h}"/></svg>'
    )
    return shape.format(w=width, h=height, title=title, bars=bars)


def rate_chart(points: Sequence[Point], now: Point) -> Markup:
    """The learning rate over the run's epochs, with a dot at this update."""
    series = [Series("learning rate", list(points)), Series("this update", [now], 1)]
    return line_chart(series, "Learning rate over the run", "epoch", zero=True)


def pairs_chart(points: Iterable[Point], title: str, x_title: str) -> Markup:
    """Numbers of two gradients one against the other; on the line they are equal."""
    pairs = list(points)
    side, left, top = 230, 52, 10
    furthest = 1.05 * max((abs(value) for point in pairs for value in point), default=1.0) or 1.0
    x_axis = Axis(-furthest, furthest, left, left + side)
    y_axis = Axis(-furthest, furthest, top + side, top)
    labels = [(at, short_number(at)) for at in (-furthest / 1.05, 0.0, furthest / 1.05)]
    parts = [
        svg.y_grid(y_axis, (left, left + side), labels),
        svg.x_axis(x_axis, top + side, labels, x_title),
        svg.line("same", (left, top + side), (left + side, top)),
        svg.cloud("cloud", [(x_axis(x), y_axis(y)) for x, y in pairs], 2),
    ]
    return svg.figure(left + side + 12, top + side + 34, title=title, parts=parts)

"""An update in short, for a terminal."""

import textwrap
from collections.abc import Iterator

from classwise.lens.drawing import shape_text
from classwise.lens.graph import Block
from classwise.lens.page import size_text
from classwise.lens.sentences import clipping_text, exact, graph_text, relative, short
from classwise.lens.view import View
from classwise.metrics.formatting import cut, display_width

MOST_ROWS = 8
MOST_PARTS = 8
BAR = 20
DEPTH = 4  # levels of modules
_PLAIN: dict[str, str | int | None] = {
    "←": "<-", "→": "->", "−": "-", "·": "*", "√": "sqrt ", "β": "b", "₁": "1", "₂": "2", "η": "lr", "λ": "decay",
    "μ": "mu", "²": "^2", "×": "x", "–": "-", "ŵ": "w'", "\u0302": "'", "ε": "eps", "█": "#", "’": "'", "≥": ">=",
}  # fmt: skip


def text_of(view: View, columns: int, plain: bool = False) -> str:
    """What the command prints, at most `columns` wide; `plain`: in ASCII, but for labels."""
    blocks = [
        _heading(view),
        list(_loss(view)),
        list(_rows(view)),
        list(_graph(view)),
        list(_gradient(view)),
        list(_step(view)),
        list(_comparisons(view)),
    ]
    text = "\n\n".join("\n".join(_wrapped(line, columns) for line in block) for block in blocks if block)
    return text.translate(str.maketrans(_PLAIN)) if plain else text


def can_encode(encoding: str | None) -> bool:
    """Whether a terminal with this encoding can show the signs of the formulas."""
    try:
        "".join(_PLAIN).encode(encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def _wrapped(line: str, columns: int) -> str:
    """Broken between words; what follows is indented by two more than the line."""
    if display_width(line) <= columns:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return "\n".join(
        textwrap.wrap(
            line, max(columns, 40), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        )
    )


def _column(text: str, width: int) -> str:
    """The text, cut or filled to so many columns."""
    text = cut(text, width)
    return text + " " * (width - display_width(text))


def _heading(view: View) -> list[str]:
    recording, settings = view.recording, view.run.parts.settings
    batches = len(recording.batches)
    lines = [
        f"update {recording.number} of {view.updates} of {view.name}: epoch {recording.epoch + 1} of"
        f" {settings.epochs}, {view.row_count} rows in {batches} micro-batch{'es' if batches > 1 else ''},"
        f" {settings.precision} on {settings.device}"
    ]
    if view.is_chosen:
        lines.append("the rows are those of --rows: `train` makes this update with rows of its own")
    if not recording.stepped:
        lines.append("no step was taken: the gradient overflowed in fp16")
    return lines


def _loss(view: View) -> Iterator[str]:
    yield f"loss {short(view.recording.total)}, after the step {short(view.loss_after)} on the same rows"
    for head in view.reduction.heads:
        start = f"  {_column(head.name, 14)} {_column(head.loss, 22)}"
        if not head.terms:
            yield f"{start} {short(head.value)} × {head.weight:g}, no sum over rows"
        for term in head.terms:
            factor = head.weight * term.weight
            yield f"{start} {short(term.total)} / {short(term.normalizer)} = {short(term.value)} × {factor:g}"
    if len(view.reduction.chunks) > 1:
        parts = " + ".join(short(chunk.loss) for chunk in view.reduction.chunks[:8])
        more = " + ..." if len(view.reduction.chunks) > 8 else ""
        yield f"  of the micro-batches: {parts}{more}; the mean of their means: {short(view.reduction.mean_of_means)}"


def _rows(view: View) -> Iterator[str]:
    heads = [head for head in view.reduction.heads if head.terms and head.by == "row"]
    if not heads:
        return
    after = view.reduction_after
    yield f"{_column('row', 24)} {_column('label', 30)} loss before → after"
    for place, row in enumerate(view.rows[:MOST_ROWS]):
        known = dict(row.truths)
        labels = ", ".join(known[head.name] for head in heads)
        before = sum(head.weight * (head.row_loss(place) or 0.0) for head in heads)
        text = f"{_column(row.id, 24)} {_column(labels, 30)} {short(before)}"
        if after is not None:
            later = [head for head in after.heads if head.terms and head.by == "row"]
            text += f" → {short(sum(head.weight * (head.row_loss(place) or 0.0) for head in later))}"
        yield text
    if view.row_count > MOST_ROWS:
        yield f"... {view.row_count - min(MOST_ROWS, len(view.rows))} more"


def _graph(view: View) -> Iterator[str]:
    graph = view.recording.graph
    if graph is None:
        return
    yield graph_text(view)
    yield from _block(graph, 1, {f"heads.{k}": f"head {name}" for k, name in enumerate(view.run.parts.heads)})


def _block(block: Block, depth: int, titles: dict[str, str]) -> Iterator[str]:
    """Operations and modules in the order of the backward pass."""
    indent = "  " * depth
    names = [op.name.removesuffix("Backward0") for op in block.ops]
    listed = " ".join(names[:4]) + (f" ... {len(names)} in all" if len(names) > 4 else "")
    shape = f" {shape_text(block.taken)} → {shape_text(block.given)}" if block.taken else ""
    title = titles.get(block.name, block.name)
    yield f"{indent}{title}{shape}{': ' if listed else ''}{listed}"
    if depth < DEPTH:
        for child in sorted(block.children, key=lambda child: -child.end):
            yield from _block(child, depth + 1, titles)
    elif block.children:
        yield f"{indent}  ... {len(block.numbers) - len(block.ops)} more inside"


def _gradient(view: View) -> Iterator[str]:
    yield clipping_text(view)
    parts = sorted(view.parts, key=lambda part: -part.share)
    titles = {f"heads.{k}": f"head {name}" for k, name in enumerate(view.run.parts.heads)}
    for part in parts[:MOST_PARTS]:
        bar = "█" * round(part.share * BAR)
        norm = f"norm {short(part.norm)}" if part.norm else "no gradient"
        frozen = f", {part.frozen} frozen" if part.frozen else ""
        yield f"  {_column(titles.get(part.name, part.name), 28)} {part.share:6.1%} {bar:{BAR}} {norm}{frozen}"
    if len(parts) > MOST_PARTS:
        yield f"  ... {len(parts) - MOST_PARTS} more"


def _step(view: View) -> Iterator[str]:
    weight, optimizer = view.recording.weight, view.optimizer
    schedule = view.run.config.schedule.name
    if view.recording.rates:
        highest = max(rate for _, rate in view.rates)
        part = " of the heads" if len(set(view.recording.rates)) > 1 else ""
        yield f"learning rate{part} {short(view.recording.rates[-1])} ({schedule}, highest {short(highest)})"
    if weight is None or not view.recording.stepped:
        return
    yield f"step of {optimizer.name} for {weight.title}: gradient {short(weight.gradient)}"
    yield f"  w {exact(weight.old)} → {exact(weight.new)}"
    if optimizer.worked is None or not optimizer.worked.lines:
        for key, value in weight.state_after.items():
            yield f"  {key} {short(weight.state.get(key, 0.0))} → {short(value)}"
        yield "  no formula is worked out for this optimizer"
        return
    for line in optimizer.worked.lines:
        yield f"  {line.symbols}: {line.numbers} = {exact(line.result)}"


def _comparisons(view: View) -> Iterator[str]:
    found = view.comparisons
    if found.accumulation is not None and found.accumulation.whole is not None:
        first, second = found.accumulation.sizes
        whole = found.accumulation.whole
        still = ", batch norm held still" if found.accumulation.norms else ""
        yield (
            f"gradient of two micro-batches ({first} and {second} rows{still}) against one batch: differs by"
            f" {relative(whole, 'two')}; the mean of two means by {relative(whole, 'means')}"
        )
    if found.modes is not None:
        train, evaluation = short(found.modes.train_loss), short(found.modes.eval_loss)
        yield f"loss of {found.modes.rows} rows in train() {train}, in eval() {evaluation}"
    if found.grad_mode is not None:
        grad = found.grad_mode
        yield (
            f"a forward pass with gradients: {grad.nodes} nodes, {size_text(grad.kept)} kept for backward; under"
            f" no_grad(): {grad.nodes_without} and {size_text(grad.kept_without)}"
        )

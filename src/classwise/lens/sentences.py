"""Sentences with numbers put in, for the page and the terminal."""

import math

from classwise.lens.comparisons import PartDifference
from classwise.lens.losses import HeadLoss
from classwise.lens.view import View


def short(value: float | None) -> str:
    """Five significant digits, with a minus sign as in print; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.5g}".replace("-", "−")


def exact(value: float) -> str:
    """Nine significant digits, which tell all numbers of float32 apart."""
    return f"{value:.9g}".replace("-", "−")


def numbers_text(view: View) -> list[tuple[str, str, str]]:
    """The strip below the headline: (name, value, small print)."""
    recording, config = view.recording, view.run.config
    chunks = len(recording.chunks)
    batches = len(recording.batches)
    rows = f"in {batches} micro-batch{'es' if batches > 1 else ''}"
    if chunks > batches:
        rows += f", computed in {chunks} chunks"
    settings = view.run.parts.settings
    count = config.training.threads
    threads = f", {count} thread{'' if count == 1 else 's'}" if settings.device.type == "cpu" else ""
    rate = recording.rates[-1] if recording.rates else None
    return [
        ("Rows", f"{view.row_count}", rows),
        ("Loss", short(recording.total), f"{short(view.loss_after)} after the step, on the same rows"),
        ("Gradient", short(recording.norm), "norm over all parameters"),
        ("Learning rate", short(rate), f"{config.schedule.name}"),
        (
            "Optimizer",
            view.optimizer.name,
            f"{sum(group.numbers for group in view.optimizer.groups):,} numbers",
        ),
        ("Computed", f"{settings.precision}", f"on {settings.device}{threads}"),
    ]


def notices(view: View) -> list[str]:
    """What a reader must know before the numbers."""
    found = list(view.run.notes)
    if view.is_chosen:
        found.append(
            "The rows were chosen with --rows. This is a real update by the same loop, but not the one that `train`"
            " makes here, which has rows of its own."
        )
    if not view.recording.stepped:
        found.append(
            "The optimizer took no step: the gradient overflowed in fp16, and the loss scale was lowered."
        )
    if view.run.config.data.mixup or view.run.config.data.cutmix:
        found.append(
            "Images and labels of this update may be mixed (mixup, CutMix): a row then has shares of labels."
        )
    if view.recording.epoch < view.run.config.training.freeze_epochs:
        found.append(
            "In this epoch the backbone is frozen (training.freeze_epochs): the heads are trained on features that it"
            " has computed once of each image, which is shown without augmentation."
        )
    if view.comparisons.missing:
        found.append(f"Memory did not suffice for: {', '.join(view.comparisons.missing)}.")
    return found


def clipping_text(view: View) -> str:
    """What clipping did."""
    recording, limit = view.recording, view.clip_norm
    if limit is None:
        return "The gradient is not clipped: training.clip_norm is not set."
    norm = short(recording.norm)
    if recording.norm <= limit:
        return f"The norm {norm} is within training.clip_norm = {limit:g}, so clipping changes nothing."
    return (
        f"The norm {norm} is above training.clip_norm = {limit:g}, so every number of the gradient is multiplied by"
        f" {limit:g} / {norm} = {short(view.clip_factor)}; the norm is then {short(recording.clipped_norm)}. The"
        " direction stays."
    )


def graph_text(view: View) -> str:
    """How large the graph is."""
    graph = view.recording.graph
    if graph is None:
        return ""
    leaves = {leaf.name for op in graph.all_ops() for leaf in op.leaves}
    frozen = sum(part.frozen for part in view.parts)
    text = f"{len(graph.numbers)} operations lead from the loss to {len(leaves)} parameters."
    if frozen:
        text += f" {frozen} parameters are frozen (requires_grad=False): the chain leaves them out."
    if not graph.children:
        text += " The forward pass is compiled (training.compile), so that its modules cannot be told apart."
    if len(view.recording.chunks) > 1:
        text += (
            f" The loop walks it {len(view.recording.chunks)} times in this update, once for each part that is computed"
            " at once; drawn is the first."
        )
    return text


def normalizer_text(head: HeadLoss) -> str:
    """What a head's sums are divided by."""
    if head.by == "query":
        return "The normalizer counts what is compared within the queries of the update"
    if head.class_weights:
        return "The normalizer adds up the class weights of the labeled rows"
    shares = {share for term in head.terms for share in term.shares}
    if shares <= {1.0}:
        return "The normalizer counts the rows"
    if shares <= {0.0, 1.0}:
        return "The normalizer counts the labeled rows"
    return "The normalizer counts what the loss has questions about: labeled cells, levels to pass, or shares of labels"


def accumulation_text(view: View) -> list[str]:
    """What the comparison of one batch and two micro-batches shows."""
    found = view.comparisons.accumulation
    if found is None:
        return []
    if found.whole is None:
        return [found.why]
    whole, sizes = found.whole, sum(found.sizes)
    some = f" the first {sizes} of" if sizes < found.of_rows else ""
    lines = [
        f"Here{some} the rows of this update are computed once as one batch of {sizes}, and once as two micro-batches"
        f" of {found.sizes[0]} and {found.sizes[1]}, each divided by the normalizer of both together, as the loop does."
        f" The gradients differ by {relative(whole, 'two')} of their norm{_cause(whole)}.",
        "Many loops divide each micro-batch by its own normalizer instead and take the mean of the two means: that"
        f" gradient differs by {relative(whole, 'means')}.{_overweight(found.sizes)}",
    ]
    if found.norms:
        layers = f"{found.norms} layer{'s' if found.norms > 1 else ''}"
        effect = ""
        if found.norm_effect is not None:
            effect = f": already the raw outputs differ by {found.norm_effect:.1%} of their size"
        lines.append(
            f"Batch norm ({layers}) is held at its running statistics in this comparison. As this config trains it, it"
            " normalizes by the images of a forward pass, which are others in a micro-batch, so that accumulation is"
            f' not exact{effect}. training.batch_norm = "frozen" holds it still in training as well.'
        )
    if found.dropout:
        lines.append(
            "Dropout is off in this comparison, since it would draw other numbers for other batches."
        )
    return lines


def relative(part: PartDifference, which: str) -> str:
    """The norm of a difference as a share of the norm of the gradient of one batch."""
    if which == "two":
        return _share(part.two_difference, part.one)
    return _share(part.means_difference, part.one)


def _share(difference: float, whole: float) -> str:
    if not whole:
        return "0" if not difference else "all"
    share = difference / whole
    return f"{share:.1%}" if share >= 1e-3 else f"{share:.1e}".replace("-", "−")


def _overweight(sizes: tuple[int, int]) -> str:
    smaller, larger = sorted(sizes)
    if smaller == larger:
        return ""
    return (
        " Without weights and missing labels, a row of the smaller one then counts"
        f" {larger / smaller:.3g} times as much as one of the larger."
    )


def _cause(whole: PartDifference) -> str:
    if whole.one and whole.two_difference / whole.one < 1e-4:
        return ": rounding, in another order of additions"
    return ": rounding in the precision that this run computes in"


def modes_text(view: View) -> list[str]:
    """What train() and eval() do differently here."""
    found = view.comparisons.modes
    if found is None:
        return []
    reasons = []
    if found.dropout:
        reasons.append(f"dropout ({len(found.dropout)} layer{'s' if len(found.dropout) > 1 else ''})")
    if found.norms:
        reasons.append(f"batch norm ({found.norms} layer{'s' if found.norms > 1 else ''})")
    why = f"What acts differently in this model: {' and '.join(reasons)}." if reasons else ""
    if not reasons:
        why = "Nothing in this model acts differently in the two modes, so that the outputs are the same"
        why += " (its batch norm is frozen)." if found.frozen_norms else "."
    lines = [why]
    if found.statistic is not None:
        name, momentum, before, after = found.statistic
        change = f"{name}: running_mean[0] went from {short(before)} to {short(after)} in this update"
        if momentum:
            change += f" (momentum {momentum:g}: that share of the batch’s own mean)"
        lines.append(f"In training mode batch norm also updates its running statistics: {change}.")
    if any(math.isnan(value) for value in found.differences.values()):
        lines.append("Some outputs are not finite in one of the modes.")
    return lines

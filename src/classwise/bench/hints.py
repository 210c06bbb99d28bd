"""What would help, as sentences that follow from the numbers alone."""

import math
from collections.abc import Callable, Iterator

from classwise.bench.result import Bench
from classwise.config.schema import Config

MATTERS = 0.15
"""The share of the time below which a stage is not worth a word."""


def hints_of(found: Bench, config: Config) -> Iterator[str]:
    """The sentences, what helps most first."""
    rules: list[Callable[[Bench, Config], str]] = [
        *(_readers_beside, _more_readers, _cache_is_incomplete, _lighter_augmentation),
        *(_precision, _transfer, _update, _model, _unexplained),
    ]
    return (hint for rule in rules if (hint := rule(found, config)))


def _reading_matters(found: Bench) -> bool:
    """Whether the run would be faster if reading were."""
    if found.workers:
        return found.pace > 0.9 * found.computing
    return found.reading > MATTERS * found.expected


def _readers_beside(found: Bench, config: Config) -> str:
    """Where workers were measured with the precision, the choice is made already."""
    measured = any(plan.workers for plan in found.plans)
    if found.workers or measured or not _reading_matters(found) or found.cores == 1:
        return ""
    workers = min(max(1, math.ceil(found.reading / max(found.computing, 1e-9))), found.cores - 1)
    longer = (
        "longer than"
        if found.reading > found.computing
        else f"{100 * found.reading / found.computing:.0f} % of"
    )
    then = max(found.reading / workers, found.computing)
    hidden = "hide it" if found.reading / workers <= found.computing else "hide a part of it"
    return (
        f"reading an image takes {longer} training on it ({found.reading:.2f} and {found.computing:.2f} ms, in turn):"
        f" data.workers = {workers} would {hidden}, up to {found.expected / then:.1f} times faster where a core is free"
    )


def _more_readers(found: Bench, config: Config) -> str:
    if not found.workers or found.pace <= 1.05 * found.computing:
        return ""
    wanted = math.ceil(found.reading / max(found.computing, 1e-9))
    possible = min(wanted, found.cores)
    text = (
        f"the loader workers set the pace: {found.workers} {'workers need' if found.workers > 1 else 'worker needs'}"
        f" {found.pace:.2f} ms an image, the model {found.computing:.2f}"
    )
    if possible <= found.workers:
        return f"{text}; all {found.cores} cores are already used for reading"
    then = f"would bring it to {found.reading / possible:.2f} ms at best: there are no more cores"
    return f"{text}: data.workers = {possible} {'would keep up' if possible == wanted else then}"


def _cache_is_incomplete(found: Bench, config: Config) -> str:
    decoding = found.milliseconds("decoding")
    if not _reading_matters(found) or decoding < MATTERS * found.reading:
        return ""
    where, then = 'data.cache = "auto" keeps the pixels', ", and later epochs only fetch them"
    if config.data.cache != "off":
        where = "the image cache does not hold all of them (see above)"
        then = ""
    return f"decoding takes {decoding:.2f} ms an image in every epoch: {where}{then}"


def _lighter_augmentation(found: Bench, config: Config) -> str:
    augmenting = found.milliseconds("augmenting")
    if (
        not _reading_matters(found)
        or augmenting < 0.5 * found.reading
        or config.data.augment.preset == "none"
    ):
        return ""
    return (
        f"augmenting is most of reading ({augmenting:.2f} of {found.reading:.2f} ms): a lighter data.augment than"
        f" {config.data.augment.preset!r}, turning and shifting above all, costs less"
    )


def _precision(found: Bench, config: Config) -> str:
    own = found.milliseconds("forward", "backward")
    if found.other is None or found.other[1] > 0.9 * own:
        return ""
    name, then = found.other
    return (
        f"{name} would be faster: forward and backward take {then:.2f} ms an image instead of {own:.2f}"
        f' (training.precision = "{name}", or "auto" to have it measured before every run)'
    )


def _transfer(found: Bench, config: Config) -> str:
    transfer = found.milliseconds("transfer")
    if transfer < MATTERS * found.computing:
        return ""
    return (
        f"moving the images to {found.device} takes {transfer:.2f} of {found.computing:.2f} ms: a smaller"
        " model.image_size, or a model that has more to do with each image"
    )


def _update(found: Bench, config: Config) -> str:
    """It costs the same for any batch."""
    update = found.milliseconds("update")
    if update < MATTERS * found.expected:
        return ""
    return (
        f"the update takes {update:.2f} of {found.computing:.2f} ms an image, whatever the batch: a larger"
        f" training.batch_size than {found.batch} (with optimizer.lr in proportion) makes fewer of them"
    )


def _model(found: Bench, config: Config) -> str:
    model = found.milliseconds("forward", "backward")
    if model < 0.6 * found.expected:
        return ""
    height, width = config.model.image_size
    return (
        f"forward and backward are {100 * model / found.expected:.0f} % of the time: a smaller model.image_size"
        f" than {height} x {width} costs in proportion to its area; so does a smaller backbone"
    )


def _unexplained(found: Bench, config: Config) -> str:
    if not found.whole or found.explained > 0.7:
        return ""
    shared = ", or readers and model share cores" if found.workers else ""
    return (
        f"whole updates take {found.whole:.2f} ms an image, the stages explain {found.expected:.2f}: something else"
        f" was at work on this machine{shared}; measure again when it is idle"
    )

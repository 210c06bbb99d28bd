"""What image files hold beside the pixels that are used, counted over a whole data set, and warned of."""

from collections.abc import Mapping
from pathlib import Path

from classwise.config.schema import Config
from classwise.data.pixel_format import ImageFacts, proposed_range


def image_warnings(facts: Mapping[Path, ImageFacts], config: Config) -> list[str]:
    """Warnings of frames and channels that are left out, and of samples of more than 8 bits that are probably scaled
    wrongly. `facts`: of the images that are used, without those of plain 8-bit samples."""
    several = [path for path, found in facts.items() if found.frames > 1]
    extra = [path for path, found in facts.items() if found.unused_channels]
    warnings = []
    if several:
        warnings.append(f"{_counted(several)} several frames or pages, of which the first is used")
    if extra:
        warnings.append(
            f"{_counted(extra)} a fourth channel that is not used; model.channels = 4 uses all (if all images have it)"
        )

    # Only samples of more than 8 bits have a range to choose.
    value_range = config.data.value_range
    deep = {path: found for path, found in facts.items() if found.bits > 8}
    if value_range is None:
        proposal = proposed_range(facts.values())
        if proposal is not None:
            low, high = proposal
            warnings.append(
                f"{len(deep)} images have more than 8 bits, but no sample above"
                f" {max(found.highest for found in deep.values()):g}, so they are nearly black as they are scaled:"
                f" data.value_range = [{low:g}, {high:g}] makes that black and white"
            )
        return warnings
    if not deep:
        return [
            *warnings,
            f"data.value_range = {list(value_range)}: has no effect, since no image has samples of more than 8 bits",
        ]
    low, high = value_range
    beyond = [path for path, found in deep.items() if found.lowest < low or found.highest > high]
    if beyond:
        reach = min(found.lowest for found in deep.values()), max(found.highest for found in deep.values())
        warnings.append(
            f"{_counted(beyond)} samples outside of data.value_range = [{low:g}, {high:g}], which become black or"
            f" white; all samples are from {reach[0]:g} to {reach[1]:g}"
        )
    return warnings


def _counted(paths: list[Path]) -> str:
    """`12 images have`, with the first of them."""
    return f"{len(paths)} image{' has' if len(paths) == 1 else 's have'} (such as {paths[0].name})"

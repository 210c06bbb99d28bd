"""What `train` would refuse is found by `init` already, as far as no image has to be read for it."""

import os
from pathlib import Path

from classwise.compose.dataset import prepare_labels
from classwise.config.conflicts import check_conflicts
from classwise.config.schema import Config
from classwise.data.image_paths import find_images
from classwise.data.sources import refuse_escapes
from classwise.errors import DataError
from classwise.suggest.guess import Guess


def rehearse(config: Config, guess: Guess) -> Config:
    """The config, once its rows, labels and split are known to be ones that `train` takes. Groups that cannot be split
    are given up, which is said. Raises DataError or ConfigError with what `train` would say."""
    table = None if guess.source else guess.table
    check_conflicts(config)
    try:
        prepare_labels(config, table)
    except DataError as error:
        if config.data.group is None or "leaves one side of the split empty" not in str(error):
            raise
        data = config.data.model_copy(update={"group": None})
        without = config.model_copy(update={"data": data})
        prepare_labels(without, table)
        guess.said.append(
            f"warning: column {config.data.group!r} looks like groups, but such groups cannot be split ({error}); rows"
            f" are split one by one, and scores are too good if rows of one {config.data.group} are alike"
        )
        guess.data.pop("group")
        guess.notes.pop("data.group", None)
        return without
    return config


def follow_links_if_needed(guess: Guess) -> None:
    """Set data.follow_links where images are reached through links that lead out of their folder, and say so."""
    cells = [cell for cell in guess.table[guess.data["path"]].to_list() if cell]
    found = find_images(cells, guess.folders, str(guess.root), follow_links=True)
    try:
        refuse_escapes(found.names, found.root, str(guess.root), folders=guess.folders)
        return
    except DataError:
        # By its text a path must stay inside in any case.
        refuse_escapes(found.names, found.root, str(guess.root), folders=guess.folders, follow_links=True)
    inside = tuple(os.path.realpath(folder) + os.sep for folder in guess.folders)
    out = [name for name in found.names if not os.path.realpath(found.root / name).startswith(inside)]
    target = Path(os.path.realpath(found.root / out[0])).parent
    guess.data["follow_links"] = True
    guess.decide(
        "data.follow_links",
        f"links: {len(out)} of {len(found.names)} images are reached through links, such as {out[0]!r} to {target}",
        "they lead out of the folder, and you have named it",
        "false refuses them; for data whose links you do not trust",
    )

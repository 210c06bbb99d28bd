"""Near copies by another library, in its own environment: python peer_copies.py TOOL FOLDER OUT.

TOOL: phash (imagededup's PHash, its default threshold of 10 bits) or cleanvision. OUT becomes a JSON object: `pairs`
of file names, and the `seconds` from the first file to the last pair.

imagededup loads the weights of its CNN from the network when it is imported, whatever is used of it. Here they stay
random, and CNN is not used: no package has them.
"""

import json
import sys
import time
from itertools import combinations
from pathlib import Path


def phash(folder: Path) -> tuple[list[list[str]], float]:
    """Pairs of imagededup's PHash."""
    import torchvision.models

    with_weights = torchvision.models.mobilenet_v3_small
    torchvision.models.mobilenet_v3_small = lambda weights=None, **options: with_weights(**options)
    from imagededup.methods import PHash

    method = PHash(verbose=False)
    started = time.perf_counter()
    duplicates = method.find_duplicates(image_dir=folder, max_distance_threshold=10)
    seconds = time.perf_counter() - started
    pairs = {tuple(sorted((one, other))) for one, others in duplicates.items() for other in others}
    return [list(pair) for pair in sorted(pairs)], seconds


def cleanvision(folder: Path) -> tuple[list[list[str]], float]:
    """Pairs of cleanvision's sets of exact and near duplicates."""
    from cleanvision import Imagelab

    started = time.perf_counter()
    lab = Imagelab(data_path=str(folder), verbose=False)
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    seconds = time.perf_counter() - started
    sets = [found for kind in ("exact_duplicates", "near_duplicates") for found in lab.info[kind]["sets"]]
    pairs = {pair for found in sets for pair in combinations(sorted(Path(path).name for path in found), 2)}
    return [list(pair) for pair in sorted(pairs)], seconds


if __name__ == "__main__":
    # imagededup starts processes, which import this file again.
    tool, source, out = sys.argv[1:]
    found_pairs, taken = {"phash": phash, "cleanvision": cleanvision}[tool](Path(source))
    Path(out).write_text(json.dumps({"pairs": found_pairs, "seconds": taken}), encoding="utf-8")

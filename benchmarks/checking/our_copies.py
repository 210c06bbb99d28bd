"""Near copies by classwise, in a process of its own: python our_copies.py FOLDER OUT. See peer_copies.py."""

import json
import sys
import time
from pathlib import Path

from classwise.datacheck.copies import find_near_copies
from classwise.datacheck.signature import Signature, read_signatures


def main(folder: Path, out: Path) -> None:
    """Write the pairs and the seconds; exact copies are pairs with the first file of their content."""
    started = time.perf_counter()
    paths = sorted(folder.iterdir())
    signatures = read_signatures(paths)
    found = find_near_copies(signatures)
    pairs = [(pair.a, pair.b) for pair in found.pairs]
    first_row: dict[bytes, int] = {}
    for row, signature in enumerate(signatures):
        if isinstance(signature, Signature):
            first = first_row.setdefault(signature.content, row)
            pairs += [(first, row)] if first != row else []
    seconds = time.perf_counter() - started
    names = [[paths[a].name, paths[b].name] for a, b in pairs]
    out.write_text(json.dumps({"pairs": names, "seconds": seconds}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

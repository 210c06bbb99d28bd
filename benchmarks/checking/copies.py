"""Near copies: how many are found, how many are not what they seem, and how long it takes.

    python benchmarks/check.py copies quality WORK --data ../shared/data [--peers PYTHON]
    python benchmarks/check.py copies time WORK --data ../shared/data --peers PYTHON [--pairs 3]
    python benchmarks/check.py copies many WORK
    python benchmarks/check.py copies tables WORK [--write]

`quality`: copies are planted among the images of four data sets, ten transformations at two strengths, 3,000 images
in all; each set is searched by itself, and all of them together. A copy is found if it is in one group with its
original. A false pair is neither a planted one nor, of tiles, of two exposures of one part. Images of one drawn
person, which differ by the mask alone, count as false; how many they are is said.

`time`: 10,000 images by classwise and by imagededup's PHash, in turns, from the first file to the last pair. `many`:
100,000 drawn signatures, compared.

--peers: the Python of an environment with imagededup 0.3.3 and cleanvision 0.3.7 (peer_copies.py). A pair is one that
they report themselves. imagededup's CNN is not compared with: its weights are on no package index.

Each result is a line of --records; `tables` prints what they come to, and --write puts it into docs/results/check.md.
Times are good only where nothing else runs."""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import idctn

from checking.planted_copies import CHANGES, SETS, Original, Planted, originals, plant
from classwise.data.pixel_format import ImageFacts
from classwise.datacheck.copies import CopyPair, copy_groups, find_near_copies
from classwise.datacheck.signature import THUMBNAIL, ImageStatistics, Signature
from imbalance import replace_between
from sidebyside.measure import run_watched

SEED = 18
OURS = "classwise"
PEERS = ("phash", "cleanvision")
NAMES = {OURS: "classwise", "phash": "imagededup PHash", "cleanvision": "cleanvision"}
PAGE = "check.md"
Record = dict[str, Any]


def make_set(name: str, options: argparse.Namespace) -> tuple[Path, list[Original], list[Planted]]:
    """A folder with the images of a data set and the copies planted among them, numbered as they are listed here."""
    chosen = originals(name, options.work, options.data, options.images, SEED)
    folder = options.work / f"planted-{name}-{len(chosen)}-{options.each}"
    planted = plant([item.path for item in chosen], folder / "copies", options.each, SEED)
    images = folder / "images"
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    for number, path in enumerate([*(item.path for item in chosen), *(item.path for item in planted)]):
        shutil.copy(path, images / f"{name}-{number:05d}{path.suffix}")
    return images, chosen, planted


def run_tool(
    tool: str, folder: Path, options: argparse.Namespace
) -> tuple[list[tuple[str, str]], float, int]:
    """The pairs of file names that a tool finds, the seconds it takes, and the most memory of its processes in
    bytes."""
    with tempfile.TemporaryDirectory(prefix="copies-") as name:
        out = Path(name) / "out.json"
        here = Path(__file__).parent
        if tool == OURS:
            command = [sys.executable, str(here / "our_copies.py"), str(folder), str(out)]
        else:
            command = [options.peers, str(here / "peer_copies.py"), tool, str(folder), str(out)]
        peak = run_watched(command, options.work / f"{tool}.log")
        found = json.loads(out.read_text(encoding="utf-8"))
        return [(one, other) for one, other in found["pairs"]], found["seconds"], peak.memory


def quality(options: argparse.Namespace) -> None:
    """Records of every tool on every set, and on all of them in one folder."""
    together = options.work / "planted-together"
    shutil.rmtree(together, ignore_errors=True)
    together.mkdir()
    all_sets = {}
    for name in SETS:
        all_sets[name] = make_set(name, options)
        for path in all_sets[name][0].iterdir():
            shutil.copy(path, together / path.name)
    for tool in (OURS, *(PEERS if options.peers else ())):
        for name, (folder, chosen, planted) in all_sets.items():
            found = run_tool(tool, folder, options)
            add(options.records, scored(tool, name, {name: (chosen, planted)}, found))
        known = {name: (chosen, planted) for name, (_, chosen, planted) in all_sets.items()}
        add(options.records, scored(tool, "together", known, run_tool(tool, together, options)))


def scored(
    tool: str,
    name: str,
    known: dict[str, tuple[list[Original], list[Planted]]],
    found: tuple[list[tuple[str, str]], float, int],
) -> Record:
    """What a tool found, counted: copies by transformation and strength, false pairs, and those of one person."""
    pairs, seconds, memory = found
    truth = {}
    for set_name, (chosen, planted) in known.items():
        sources = [*range(len(chosen)), *(item.original for item in planted)]
        for number, source in enumerate(sources):
            truth[f"{set_name}-{number:05d}"] = (set_name, chosen[source])
    stems = [(Path(one).stem, Path(other).stem) for one, other in pairs]

    # Peers report each pair; ours connect groups.
    numbers = {stem: number for number, stem in enumerate(truth)}
    connected = connect(len(numbers), [(numbers[one], numbers[other]) for one, other in stems])
    reported = {frozenset(pair) for pair in stems}
    counts: dict[str, list[int]] = {}
    for set_name, (chosen, planted) in known.items():
        for number, item in enumerate(planted):
            ends = f"{set_name}-{item.original:05d}", f"{set_name}-{len(chosen) + number:05d}"
            if tool == OURS:
                is_found = connected[numbers[ends[0]]] == connected[numbers[ends[1]]]
            else:
                is_found = frozenset(ends) in reported
            count = counts.setdefault(f"{item.change}/{item.strength}", [0, 0])
            count[0] += is_found
            count[1] += 1
    false = [
        (truth[one][1], truth[other][1])
        for one, other in stems
        if (truth[one][0], truth[one][1].group) != (truth[other][0], truth[other][1].group)
    ]
    return {
        "kind": "quality",
        "tool": tool,
        "set": name,
        "images": len(truth),
        "found": counts,
        "pairs": len(pairs),
        "false": len(false),
        "one_person": sum(one.subject == other.subject for one, other in false),
        "seconds": round(seconds, 2),
        "memory": memory,
    }


def connect(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """A group number of each of `count` images."""
    return copy_groups(count, [CopyPair(*pair, value=1.0, how="") for pair in pairs], [None] * count)


def time_pairs(options: argparse.Namespace) -> None:
    """Records of both tools on 10,000 images, the other one first in every second pair."""
    folder = options.work / f"many-{options.count}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    items = [item for name in SETS for item in originals(name, options.work, options.data, 10**6, SEED)]
    chosen = np.random.default_rng(SEED).permutation(len(items))[: options.count]
    for number, row in enumerate(chosen.tolist()):
        shutil.copy(items[row].path, folder / f"{number:05d}{items[row].path.suffix}")
    for number in range(options.pairs):
        for tool in (OURS, "phash")[:: -1 if number % 2 else 1]:
            pairs, seconds, memory = run_tool(tool, folder, options)
            add(
                options.records,
                {
                    "kind": "time",
                    "tool": tool,
                    "pair": number,
                    "images": len(chosen),
                    "pairs": len(pairs),
                    "seconds": round(seconds, 2),
                    "memory": memory,
                },
            )


def many(options: argparse.Namespace) -> None:
    """A record of comparing 100,000 drawn signatures, a hundredth of them mirrored copies of others."""
    rows = drawn_signatures(100_000, copies=1_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu = time.perf_counter(), time.process_time()
    found = find_near_copies(rows)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    right = sum(pair.b == pair.a + len(rows) - 1_000 for pair in found.pairs)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    add(
        options.records,
        {
            "kind": "many",
            "signatures": len(rows),
            "seconds": round(seconds, 1),
            "cpu": round(cpu, 1),
            "found": right,
            "planted": 1_000,
            "false": len(found.pairs) - right,
            "memory": (after - before) * 1024,
        },
    )


def drawn_signatures(count: int, copies: int) -> list[Signature]:
    """Noise with the spectrum of photographs; the last `copies` are the first ones, mirrored and a little noisier."""
    rng = np.random.default_rng(SEED)
    statistics = ImageStatistics(
        height=64,
        width=64,
        mean=128.0,
        std=40.0,
        p1=0.0,
        p99=255.0,
        sharpness=100.0,
        gray=True,
        entropy=7.0,
        border=128.0,
        flat_border=False,
        cb=0.0,
        cr=0.0,
    )
    u = np.arange(THUMBNAIL)
    falling_SS = 1 / np.maximum(1, np.hypot(u[:, None], u))
    falling_SS[0, 0] = 0

    def levels(values_SS: NDArray[np.float64]) -> NDArray[np.uint8]:
        return np.clip(np.rint(values_SS), 0, 255).astype(np.uint8)[None]

    views = [
        levels(128 + 700 * idctn(rng.normal(size=falling_SS.shape) * falling_SS, norm="ortho"))
        for _ in range(count - copies)
    ]
    views += [levels(view[0, :, ::-1] + rng.normal(0, 2, falling_SS.shape)) for view in views[:copies]]
    return [
        Signature(number.to_bytes(32, "big"), "PNG", ImageFacts(), statistics, view)
        for number, view in enumerate(views)
    ]


def add(path: Path, record: Record) -> None:
    """Append a line, and print it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")
    print({key: value for key, value in record.items() if key != "found"}, flush=True)


def quality_table(records: Sequence[Record]) -> list[str]:
    """A row for each tool and set: recall, and false pairs in 1,000 images."""
    lines = [
        "| tool | data | images | copies | found | false pairs in 1,000 images | without pairs of one drawn person |",
        "|---|---|---|---|---|---|---|",
    ]
    latest = {(record["tool"], record["set"]): record for record in records}
    for tool in (OURS, *PEERS):
        of_tool = [latest[tool, name] for name in (*SETS, "together") if (tool, name) in latest]
        for record in of_tool:
            found, planted = (sum(count[i] for count in record["found"].values()) for i in (0, 1))
            false = [record["false"], record["false"] - record["one_person"]]
            rates = [f"{1000 * count / record['images']:.1f}" for count in false]
            share = f"{found / planted:.3f}"
            cells = [NAMES[tool], record["set"], record["images"], planted, share, *rates]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def changes_table(records: Sequence[Record]) -> list[str]:
    """A row for each transformation: how many are found over the sets, weak and strong."""
    latest = {(record["tool"], record["set"]): record for record in records}
    tools = [tool for tool in (OURS, *PEERS) if all((tool, name) in latest for name in SETS)]
    titles = [f"{NAMES[tool]}, {strength}" for tool in tools for strength in ("weak", "strong")]
    lines = [f"| transformation | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for change in CHANGES:
        shares = []
        for tool in tools:
            for strength in (0, 1):
                counts = [latest[tool, name]["found"][f"{change}/{strength}"] for name in SETS]
                shares.append(f"{sum(c[0] for c in counts) / sum(c[1] for c in counts):.2f}")
        lines.append(f"| {change} | {' | '.join(shares)} |")
    return lines


def time_table(records: Sequence[Record]) -> list[str]:
    """Medians over the pairs, and the median of their ratios."""
    lines = ["| tool | images | seconds | MB |", "|---|---|---|---|"]
    by_tool = {tool: {r["pair"]: r for r in records if r["tool"] == tool} for tool in (OURS, "phash")}
    for tool, of_tool in by_tool.items():
        values = list(of_tool.values())
        seconds, memory = (median(record[key] for record in values) for key in ("seconds", "memory"))
        lines.append(f"| {NAMES[tool]} | {values[0]['images']:,} | {seconds:.1f} | {memory / 1e6:.0f} |")
    ours, theirs = by_tool.values()
    ratio = median(ours[pair]["seconds"] / theirs[pair]["seconds"] for pair in ours.keys() & theirs.keys())
    return [*lines, "", f"Ratio of the times, median of {len(ours)} pairs: {ratio:.2f}."]


def many_table(records: Sequence[Record]) -> list[str]:
    """A sentence on the latest record."""
    last = records[-1]
    return [
        f"{last['signatures']:,} drawn signatures are compared in {last['seconds']:.0f} s"
        f" ({last['cpu']:.0f} processor seconds) and {last['memory'] / 1e6:.0f} MB beside the signatures;"
        f" {last['found']:,} of {last['planted']:,} copies found, {last['false']:,} false pairs."
    ]


def tables(options: argparse.Namespace) -> None:
    """Print the tables of the records, and write them with --write."""
    text = options.records.read_text(encoding="utf-8") if options.records.exists() else ""
    records = [json.loads(line) for line in text.splitlines()]
    makers = {
        "copies quality": ("quality", quality_table),
        "copies changes": ("quality", changes_table),
        "copies time": ("time", time_table),
        "copies many": ("many", many_table),
    }
    for marker, (kind, make) in makers.items():
        chosen = [record for record in records if record["kind"] == kind]
        if not chosen:
            continue
        table = "\n".join(make(chosen))
        print(f"\n{marker}\n{table}")
        if options.write:
            replace_between(PAGE, marker, table)


def main(arguments: Sequence[str]) -> int:
    """`copies` of benchmarks/check.py."""
    parser = argparse.ArgumentParser(prog="check.py copies", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("quality", "time", "many", "tables"))
    parser.add_argument(
        "work", type=Path, nargs="?", default=Path(tempfile.gettempdir()) / "classwise-copies"
    )
    parser.add_argument("--data", type=Path, help="the folder with tiles/ and cells/")
    parser.add_argument("--images", type=int, default=550, help="of each data set, beside the copies")
    parser.add_argument("--each", type=int, default=10, help="copies for each transformation and strength")
    parser.add_argument("--count", type=int, default=10_000, help="images that are timed")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--peers", help="the Python of an environment with imagededup and cleanvision")
    parser.add_argument("--records", type=Path, help="the file of all results [default: WORK/copies.jsonl]")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/results/{PAGE}")
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    options.records = options.records or options.work / "copies.jsonl"
    if options.what == "time" and not options.peers:
        parser.error("time: --peers is needed")
    {"quality": quality, "time": time_pairs, "many": many, "tables": tables}[options.what](options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

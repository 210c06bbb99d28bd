"""The run directory: its name, its files, and what its status says."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from safetensors import SafetensorError

from classwise.data.table import full_column, read_table, write_table
from classwise.data.texts import Texts
from classwise.distributed import Processes
from classwise.errors import CheckpointError, OutputError
from classwise.files import make_folder, numbered, write_bytes, write_json, write_text
from classwise.run.heartbeat import PROGRESS_FILES
from classwise.run.lock import LOCK_FILES, locked, refuse_held
from classwise.signals import defer_signals

if TYPE_CHECKING:  # not at run time: `report` needs neither torch nor the config and the data of a run
    from torch import Tensor

    from classwise.compose.splits import DatasetSplits
    from classwise.data.sources import Samples


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, and its files; docs/guide.md says what each holds."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def augmented(self) -> Path:
        return self.path / "augmented.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def has_begun(self) -> bool:
        """Whether a checkpoint was ever completed. One that is being replaced is there under a hidden name."""
        entries = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        return any(not path.name.startswith(".staging") for path in entries)

    def status(self) -> dict[str, Any]:
        """status.json. Raises CheckpointError if the folder holds no run, or the file is damaged."""
        return self._json("status.json")

    def write_status(self, status: dict[str, Any]) -> None:
        """Replace status.json in one step."""
        write_json(self.path / "status.json", status)

    def metrics(self) -> dict[str, Any]:
        """metrics.json; see `status` for the errors."""
        return self._json("metrics.json")

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Replace metrics.json in one step."""
        write_json(self.path / "metrics.json", metrics)

    def history(self) -> list[dict[str, Any]]:
        """history.jsonl, one dict per epoch; empty before the first epoch has ended."""
        path = self.path / "history.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        """Replace history.jsonl in one step. It is written whole, so that a resume from an earlier checkpoint leaves no
        later rows."""
        lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
        write_text(self.path / "history.jsonl", "".join(line + "\n" for line in lines))

    def write_split(self, frame: pl.DataFrame | Iterable[pl.DataFrame]) -> None:
        """Replace split.csv in one step. `frame`: its rows, or parts of them in their order."""
        parts = [frame] if isinstance(frame, pl.DataFrame) else frame
        texts = [part.write_csv(include_header=number == 0).encode() for number, part in enumerate(parts)]
        write_bytes(self.path / "split.csv", b"".join(texts))

    def split(self) -> pl.DataFrame:
        """split.csv: id, group, split, path, content."""
        return read_table(self.path / "split.csv")

    def groups(self, split: str, by_image: bool = True) -> dict[str, str] | None:
        """By id, the group of each row of a split, for a bootstrap: rows that share a group or, with `by_image`, their
        image are in one. None if each row is its own. Raises DataError for a damaged file."""
        from classwise.compose.contents import dependent_rows

        rows = self.split().filter(pl.col("split") == split)
        # Runs without groups have an empty column, those of earlier versions no contents.
        columns = [
            rows[name].to_list() if name in rows.columns and not rows[name].null_count() else None
            for name in ("group", "content")
        ]
        groups = dependent_rows(columns[0], columns[1] if by_image else None)
        return None if groups is None else dict(zip(rows["id"].to_list(), groups, strict=True))

    def sides(self) -> list[list[str]]:
        """The id of every row in split.csv, and the split that it is in. Raises DataError for a damaged file."""
        frame = self.split()
        columns = [full_column(frame, name, str(self.path / "split.csv"), name) for name in ("id", "split")]
        return [list(row) for row in zip(*columns, strict=True)]

    def write_predictions(self, frame: pl.DataFrame, split: str = "valid") -> None:
        """Replace predictions.csv, or predictions-test.csv for the `test` split, in one step."""
        name = "predictions.csv" if split == "valid" else f"predictions-{split}.csv"
        write_table(frame, self.path / name, escape_formulas=True)

    def write_outputs(self, outputs: Mapping[str, Mapping[str, "Tensor"]]) -> None:
        """Replace outputs.safetensors in one step: the raw outputs (N, outputs) of the best checkpoint for the rows of
        each split, by target."""
        from safetensors.torch import save

        tensors = {
            f"{split}/{name}": values.contiguous()
            for split, by_target in outputs.items()
            for name, values in by_target.items()
        }
        write_bytes(self.path / "outputs.safetensors", save(tensors))

    def outputs(self, split: str) -> "dict[str, Tensor] | None":
        """The raw outputs of the rows of a split in its order, by target; None if there are none, or the file is
        damaged."""
        from safetensors.torch import load

        try:
            tensors = load((self.path / "outputs.safetensors").read_bytes())
        except (OSError, SafetensorError):
            return None
        start = f"{split}/"
        found = {
            name.removeprefix(start): values for name, values in tensors.items() if name.startswith(start)
        }
        return found or None

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            if self.path.is_dir():
                what = f"it holds no {name}"
                if (self.path / "status.json").exists():
                    what += "; the run has not come that far"
            else:
                what = "there is no such folder"
            raise CheckpointError(f"{self.path} is not a run that can be used: {what}") from None
        except NotADirectoryError:
            raise CheckpointError(f"{self.path} is a file; a run is the folder that `train` makes") from None
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged: {error}") from None


ROWS_AT_ONCE = 65_536


def split_table(splits: "DatasetSplits") -> pl.DataFrame:
    """The contents of split.csv, training rows first: id, group (null if there are none), split, path and content (a
    hash of the decoded image)."""
    return pl.concat(split_parts(splits, rows=None))


def split_parts(splits: "DatasetSplits", rows: int | None = ROWS_AT_ONCE) -> Iterator[pl.DataFrame]:
    """`split_table` in parts of so many rows at the most, since that of a million takes 200 MB; the first one may have
    none."""
    for name, split in splits.by_name.items():
        samples = split.samples
        if rows is None or len(samples) <= rows:
            yield _rows_of_split(name, samples)
            continue
        for start in range(0, len(samples), rows):
            yield _rows_of_split(name, samples.take(np.arange(start, min(start + rows, len(samples)))))


def _rows_of_split(name: str, samples: "Samples") -> pl.DataFrame:
    ids, nothing = _column(samples.ids), pl.lit(None, pl.String)
    columns = {
        "id": ids,
        "group": nothing if samples.groups is None else _column(samples.groups),
        "split": pl.lit(name),
        "path": _paths(samples),
        "content": nothing if samples.contents is None else _column(samples.contents),
    }
    return pl.DataFrame({"id": ids}).select(**columns)


def _column(texts: Sequence[str]) -> pl.Series:
    return Texts.of(texts).column()


def _paths(samples: "Samples") -> pl.Series:
    """The paths of the images, as `str` of them has them."""
    names = _column(samples.names)
    # By text alone, without a Path for each row. Not where a Path would change the text: it leaves out
    # `./` and a second slash, and takes a name that begins with a slash for an absolute one.
    if os.sep != "/" or names.str.contains(r"(^|/)\.?(/|$)").any():
        return Texts.of(map(str, samples.paths)).column()
    root = str(samples.root)
    prefix = "" if root == "." else root.rstrip("/") + "/"
    return prefix + names


def has_checkpoint(folder: RunFolder) -> bool:
    """Whether a checkpoint was ever completed."""
    return folder.has_begun


@contextlib.contextmanager
def new_folder(
    name: str, wanted: Path | None, has_begun: Callable[[RunFolder], bool] = has_checkpoint
) -> Iterator[RunFolder]:
    """Make the folder of a new run and lock it until the end of the block: `wanted`, which must be empty, or by
    default runs/NAME, runs/NAME-2, ...

    If the block raises before the run `has_begun` (by default, before the first checkpoint is written), everything in
    the folder is removed again. Raises OutputError.
    """
    path, is_new = _made(name, wanted)
    try:
        with locked(path):
            require_empty(path)  # again: before the lock, another run may have come and gone
            folder = RunFolder(path)
            try:
                yield folder
            except BaseException:
                if not has_begun(folder):
                    _clear(path)
                raise
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):  # not empty: another program has put something into it
                path.rmdir()
        raise


@contextlib.contextmanager
def new_folder_on_rank_zero(
    name: str, wanted: str | Path | None, processes: Processes
) -> Iterator[RunFolder]:
    """`new_folder`, made and locked by rank 0 alone; the other processes get its path."""
    wanted = None if wanted is None else Path(wanted)
    with contextlib.ExitStack() as stack:
        # A signal between the lock and the stack's note of it would leave the lock behind.
        with defer_signals():
            path = processes.from_rank_zero(lambda: str(stack.enter_context(new_folder(name, wanted)).path))
        yield RunFolder(Path(path))


@contextlib.contextmanager
def locked_by_rank_zero(folder: RunFolder, processes: Processes) -> Iterator[None]:
    """The run directory locked by rank 0 until the end of the block. Raises OutputError in all processes if another
    program holds it."""
    with contextlib.ExitStack() as stack:
        with defer_signals():
            processes.from_rank_zero(lambda: stack.enter_context(locked(folder.path)))
        yield


def _made(name: str, wanted: Path | None) -> tuple[Path, bool]:
    """An empty folder, and whether it was made just now. Raises OutputError."""
    if wanted is not None:
        require_unused(wanted)
        return wanted, _make(wanted)
    return next(path for path in numbered(Path("runs") / name) if _make(path)), True


def _make(folder: Path) -> bool:
    """Make the folder; False if it exists. Raises OutputError."""
    try:
        make_folder(folder, exist_ok=False)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror}") from None
    return True


def require_unused(folder: Path) -> None:
    """Raise OutputError unless a new run may have the folder; one in use by a run that is under way is named as such,
    which says more than that it is not empty."""
    try:
        require_empty(folder)
    except OutputError:
        refuse_held(folder)
        raise


def require_empty(folder: Path) -> None:
    """Raise OutputError unless the folder is empty but for what a run leaves that is killed before it has anything to
    go on from: its lock file and its last sign of life."""
    left = (*LOCK_FILES, *PROGRESS_FILES)
    if folder.exists() and (not folder.is_dir() or any(entry.name not in left for entry in folder.iterdir())):
        raise OutputError(
            f"{folder} already exists and is not overwritten; name another folder, or go on with it:"
            f" classwise resume {folder}"
        )


def _clear(folder: Path) -> None:
    """Delete everything in the folder but the lock file, which goes with the lock."""
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name not in LOCK_FILES:
            entry.unlink(missing_ok=True)

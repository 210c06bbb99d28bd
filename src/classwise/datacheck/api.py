"""`classwise check`: read the rows and their images, look for what is wrong with them, and write what was found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import polars as pl

from classwise.compose.image_check import pixel_format
from classwise.compose.splits import DatasetSplits
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.checking import check_image
from classwise.data.images import MAX_PIXELS
from classwise.data.pixel_format import RGB, PixelFormat
from classwise.datacheck.changes import (
    refuse_existing_changes,
    write_fixes,
    write_group_table,
)
from classwise.datacheck.copies import CopyPair, copy_groups, find_near_copies, is_flat
from classwise.datacheck.features import reason_without_features, row_features
from classwise.datacheck.finding import KINDS, SEVERE, SEVERITIES, Finding
from classwise.datacheck.found_columns import dependent_units, shift_findings, shortcut_findings
from classwise.datacheck.found_copies import copy_findings
from classwise.datacheck.found_images import (
    outlier_findings,
    quality_findings,
    statistics_table,
    unreadable_findings,
)
from classwise.datacheck.found_labels import LabelErrors, label_findings, rank_labels
from classwise.datacheck.image_quality import QualityIssue
from classwise.datacheck.out_of_fold import target_probabilities
from classwise.datacheck.outliers import find_outliers
from classwise.datacheck.page import PageRow, write_page
from classwise.datacheck.rows import TRAIN, Rows, rows_of, rows_of_splits
from classwise.datacheck.signature import Signature, UnreadableFile, read_signatures
from classwise.datacheck.written import Checked, sorted_findings, write_check_csv, write_check_json
from classwise.errors import ClasswiseError, DataError, OutputError
from classwise.files import make_folder, numbered
from classwise.version import __version__

HTML, CSV, JSON = "check.html", "check.csv", "check.json"
MOST_LINES = 5
"""Findings of the data as a whole that the terminal shows."""


@dataclass(frozen=True)
class OutOfFold:
    """oof.parquet of the folds in `where`."""

    where: Path
    frame: pl.DataFrame


@dataclass(frozen=True, repr=False)
class Check:
    """What was found. `folder` has check.html, check.csv and check.json; `group_of` is the number of each row's group
    of copies; `errors`: the ranking of the labels, with out-of-fold probabilities."""

    folder: Path
    rows: Rows
    findings: tuple[Finding, ...]
    checked: Checked
    group_of: tuple[int, ...]
    errors: LabelErrors | None = None

    @property
    def is_severe(self) -> bool:
        """Whether anything that was found is severe."""
        return any(finding.severity == SEVERE for finding in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Findings by severity, from the worst down."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    @property
    def lines(self) -> list[str]:
        """What was found by severity: `severe: contradictory labels 1, unreadable images 2`; and, after it, what was
        found of the data as a whole, such as shortcuts, each in a line."""
        found = []
        for severity in SEVERITIES:
            kinds = Counter(finding.kind for finding in self.findings if finding.severity == severity)
            parts = [f"{KINDS[kind].lower()} {kinds[kind]}" for kind in KINDS if kinds[kind]]
            found.append(f"{severity}: {', '.join(parts) or 'nothing'}")
        of_all = [finding for finding in self.findings if not finding.id]
        found += [f"- {finding.advice.partition('. ')[0]}" for finding in of_all[:MOST_LINES]]
        if len(of_all) > MOST_LINES:
            found.append(f"- {len(of_all) - MOST_LINES} more of the data as a whole: {self.folder / HTML}")
        return found

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {severity}" for severity, count in self.counts.items())
        return f"Check({str(self.folder)!r}: {len(self.rows)} rows, {counts})"


def check_source(
    source: str | Path,
    against: Sequence[str | Path] = (),
    out_of_fold: OutOfFold | None = None,
    out: str | Path | None = None,
    overrides: Sequence[tuple[str, str]] = (),
    write_groups: bool = False,
    fix: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> Check:
    """Check the data of a classwise.toml, a table or a folder, and write check.html, check.csv and check.json to `out`
    (default: runs/NAME-check, numbered if it exists).

    `against`: tables or folders of images that should have nothing in common with the data, such as a test.
    `write_groups` and `fix` also write groups.csv and proposals.csv (datacheck/changes.py), which `force` replaces. The
    source is never changed. Raises DataError for what cannot be read as a source, and for folds of other data; images
    that cannot be read are findings.
    """
    console = Console(quiet)
    rows = rows_of(Path(source), [Path(path) for path in against], overrides)
    for note in rows.notes:
        console.paragraph(note)
    folder = _folder_of(rows, out)
    refuse_existing_changes(rows, folder, groups=write_groups, fix=fix, force=force)
    search = _Search(rows, console)
    search.run(out_of_fold)
    make_folder(folder, exist_ok=True)
    found = search.write(str(source), folder)
    if write_groups:
        console.paragraph(write_group_table(rows, found.group_of, folder, force))
    if fix:
        console.paragraph(
            write_fixes(
                rows,
                exact=search.exact,
                unusable=search.unusable,
                errors=found.errors,
                folder=folder,
                force=force,
            )
        )
    return found


def check_splits(folder: Path, config: Config, splits: DatasetSplits, console: Console) -> Check:
    """Check the rows of a run as it has split them, and write the files into its `folder` (data.check = "all")."""
    search = _Search(rows_of_splits(config, splits), console)
    search.run(None)
    found = search.write(config.data.source, folder)
    for line in found.lines:
        console.line(f"check: {line}")
    console.line(f"check: {folder / HTML}")
    return found


class _Search:
    """What is found step by step, with what was looked at and what was not, and why."""

    def __init__(self, rows: Rows, console: Console) -> None:
        self.rows, self.console = rows, console
        self.findings: list[Finding] = []
        self.done: list[str] = []
        self.not_done: list[str] = [*rows.not_done]
        self.unusable: dict[int, str] = {}
        self.signatures: list[Signature | UnreadableFile] = []
        self.exact: list[list[int]] = []
        self.group_of: list[int] = list(range(len(rows)))
        self.issues: list[QualityIssue] = []
        self.statistics = pl.DataFrame()
        self.errors: LabelErrors | None = None

    @property
    def pixels(self) -> PixelFormat:
        """What image files become before they are looked at."""
        return RGB if self.rows.config is None else pixel_format(self.rows.config)

    @property
    def max_pixels(self) -> int:
        return MAX_PIXELS if self.rows.config is None else self.rows.config.data.max_pixels

    def run(self, out_of_fold: OutOfFold | None) -> None:
        """All steps. Raises DataError for folds of other data, before an image is read."""
        probabilities: dict[str, npt.NDArray[np.float64]] = {}
        if out_of_fold is not None:
            probabilities, left_out = target_probabilities(out_of_fold.frame, self.rows, out_of_fold.where)
            self.not_done += left_out
        self.images()
        self.copies()
        self.columns()
        self.features()
        self.labels(probabilities, is_asked=out_of_fold is not None)

    def images(self) -> None:
        """Read every file once."""
        for part in self.rows.parts:
            self.signatures += read_signatures(
                part.samples.paths,
                root=part.samples.allowed_folders,
                max_pixels=self.max_pixels,
                pixels=self.pixels,
                progress=lambda items: self.console.bar(items, "reading images", total=len(items)),
            )
        self.findings += unreadable_findings(self.rows, self.signatures)
        self.statistics = statistics_table(self.signatures)
        found, self.issues = quality_findings(self.rows, self.statistics)
        self.findings += found
        reasons = {row: s.reason for row, s in enumerate(self.signatures) if isinstance(s, UnreadableFile)}
        reasons |= {
            issue.row: issue.reason
            for issue in self.issues
            if issue.kind == "blank" and issue.severity == SEVERE
        }
        self.unusable = {row: reason for row, reason in reasons.items() if self.rows.is_source[row]}
        self.done.append(f"{len(self.rows)} images: readable, blank, dark, bright, blurred, size, format")

    def copies(self) -> None:
        """Exact copies by their bytes and by their pixels, and near ones."""
        near = find_near_copies(self.signatures)
        contents = self._contents(near.pairs)
        self.exact = _rows_by_content(contents)
        linked = [pair for pair in near.pairs if contents[pair.a] != contents[pair.b]]
        self.group_of = copy_groups(len(self.rows), near.pairs, contents)
        self.findings += copy_findings(self.rows, self.exact, linked, self.group_of)
        self.done.append(
            "copies: the same pixels; and nearly the same image (re-encoded, resized, mirrored, turned, cropped a"
            " little, brighter or darker, with a border), by a threshold that is measured on this data"
        )

    def _contents(self, near: Sequence[CopyPair]) -> list[bytes | None]:
        """What each row holds, None where it cannot be read: a hash of its file or, where it has near copies, of its
        pixels, by which other files of the same image are known."""
        contents = [s.content if isinstance(s, Signature) else None for s in self.signatures]
        asked = {row for pair in near for row in (pair.a, pair.b)}
        asked |= {row for row, s in enumerate(self.signatures) if isinstance(s, Signature) and is_flat(s)}
        by_file: dict[bytes, bytes] = {}
        start = 0
        for part in self.rows.parts:
            for number, path in enumerate(part.samples.paths):
                row = start + number
                content = contents[row]
                if row in asked and content is not None and content not in by_file:
                    found = check_image(
                        path, self.max_pixels, root=part.samples.allowed_folders, pixels=self.pixels
                    )
                    by_file[content] = found.pixels
            start += len(part.samples)
        return [content if content is None else by_file.get(content, content) for content in contents]

    def columns(self) -> None:
        """What tells the label and should not."""
        numbers = [target.name for target in self.rows.targets if target.type == "regression"]
        if numbers:
            self.not_done.append(
                f"shortcuts to {' and '.join(numbers)}: they are looked for with labels only"
            )
        if len(self.rows.texts) == len(numbers):
            self.not_done.append("shortcuts, contradictory labels: there are no labels")
            return
        units = dependent_units(self.rows, self.group_of)
        self.findings += shortcut_findings(self.rows, self.statistics, self.issues, units, self.max_pixels)
        self.done.append(
            "shortcuts: whether the size, format, dimensions, folder, time or camera of a file, the border of the"
            " image, its defects, or the position in the table tell the label"
        )

    def features(self) -> None:
        """Outliers, and whether the parts look alike, by the features of the backbone."""
        reason = reason_without_features(self.rows.config)
        what = "outliers and shift"
        if not reason:
            usable_N = np.array([isinstance(s, Signature) for s in self.signatures], dtype=bool)
            contents = [s.content if isinstance(s, Signature) else b"" for s in self.signatures]
            try:
                found = row_features(self.rows, usable_N, contents, self.console)
            except (MemoryError, RuntimeError, ClasswiseError) as error:
                reason = f"features could not be computed: {type(error).__name__}: {error}"
        if reason:
            self.not_done.append(f"{what}: {reason}")
            return
        # What is blank is unlike all others, and is named already.
        own_M = np.array(
            [
                place
                for place, row in enumerate(found.rows)
                if not self.rows.is_other[row] and row not in self.unusable
            ],
            dtype=np.int64,
        )
        try:
            outliers = find_outliers(found.features[own_M])
            self.findings += outlier_findings(self.rows, found.rows[own_M], outliers)
            self.done.append(f"outliers among {len(own_M)} images, by the features of a pretrained network")
        except DataError as error:
            self.not_done.append(str(error))
        others = [name for name in dict.fromkeys(self.rows.part_of) if name != TRAIN]
        if not others:
            self.not_done.append(
                "shift: there is one set of images only; --against TEST compares with another"
            )
            return
        shifts, left_out = shift_findings(self.rows, found, dependent_units(self.rows, self.group_of))
        self.findings += shifts
        self.not_done += left_out
        if len(left_out) < len(others):
            self.done.append("shift: whether the other parts look like the training images")

    def labels(self, probabilities: dict[str, npt.NDArray[np.float64]], is_asked: bool) -> None:
        """Likely label errors."""
        if not probabilities:
            if not is_asked:
                self.not_done.append(
                    "likely label errors: they need models that have not seen the rows: classwise folds CONFIG, then"
                    " classwise check CONFIG --run runs/NAME-folds"
                )
            return
        self.errors = rank_labels(self.rows, probabilities)
        self.findings += label_findings(self.rows, self.errors)
        self.done += self.errors.lines

    def write(self, source: str, folder: Path) -> Check:
        """Write the three files."""
        counted = Counter(self.rows.part_of)
        checked = Checked(
            source=source,
            rows={part.name: counted[part.name] for part in self.rows.parts},
            done=self.done,
            not_done=self.not_done,
            versions={"classwise": __version__, "opencv": cv2.__version__, "numpy": np.__version__},
        )
        rows = {id: self._page_row(number) for number, id in enumerate(self.rows.ids)}
        write_check_csv(self.findings, folder / CSV)
        write_check_json(self.findings, checked, folder / JSON)
        write_page(
            self.findings,
            rows,
            checked,
            folder / HTML,
            self.rows.folders,
            pixels=self.pixels,
            max_pixels=self.max_pixels,
        )
        return Check(
            folder=folder,
            rows=self.rows,
            findings=tuple(sorted_findings(self.findings)),
            checked=checked,
            group_of=tuple(self.group_of),
            errors=self.errors,
        )

    def _page_row(self, row: int) -> PageRow:
        labels = {name: text for name, texts in self.rows.texts.items() if (text := texts[row]) is not None}
        return PageRow(self.rows.ids[row], self.rows.paths[row], labels, self.rows.part_of[row])


def _rows_by_content(contents: Sequence[bytes | None]) -> list[list[int]]:
    """The rows of each content that several rows have, in the order of their first rows."""
    rows: dict[bytes, list[int]] = {}
    for row, content in enumerate(contents):
        if content is not None:
            rows.setdefault(content, []).append(row)
    return [found for found in rows.values() if len(found) > 1]


def _folder_of(rows: Rows, out: str | Path | None) -> Path:
    """The folder for the files: as given, or the first free one; it is made once there is something to write. The three
    files of an earlier check in a given folder are replaced. Raises OutputError."""
    if out is None:
        return next(path for path in numbered(Path("runs") / f"{rows.name}-check") if not path.exists())
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; --out names a folder")
    return folder

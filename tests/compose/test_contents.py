"""Equal content is one group: copies of an image are on one side of the split, under whatever name."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from classwise.compose.contents import content_counts, leak_warning, resampling_groups
from classwise.compose.dataset import prepare
from classwise.compose.splits import DatasetSplits
from classwise.config.load import absolute_paths, make_config
from classwise.console import Console
from classwise.errors import DataError
from classwise.metrics.ranking import RankingMetric

Row = dict[str, Any]


def pixels(number: int) -> np.ndarray:
    """A drawn image (8, 8, 3), another one for each number."""
    return np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)


def write_image(path: Path, number: int) -> None:
    """The drawn image as PNG or BMP, by the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, pixels(number))[1].tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty different images, 00.png to 29.png."""
    for number in range(30):
        write_image(tmp_path / f"{number:02}.png", number)
    return tmp_path


def splits_of(
    folder: Path,
    make_table: Callable[..., Path],
    rows: Sequence[Row],
    targets: dict[str, Any] | None = None,
    data: Row | None = None,
    seed: int = 0,
    metric: str = "",
) -> DatasetSplits:
    """What `prepare` makes of a table of these rows."""
    make_table(folder / "samples.csv", rows)
    targets = targets or {"kind": {"column": "kind"}}
    usual = {"regression": "mae", "ranking": "ndcg"}
    metric = metric or usual.get(next(iter(targets.values())).get("type", "class"), "macro_f1")
    tree = {
        "seed": seed,
        "data": {"source": "samples.csv", "id": "id", "valid": 0.3, "workers": 0, "cache": "off"}
        | (data or {}),
        "targets": targets,
        "selection": {"metric": metric},
        "model": {"image_size": [8, 8]},
    }
    return prepare(absolute_paths(make_config(tree), folder), Console(quiet=True))


def plain_rows(count: int = 30) -> list[Row]:
    """A row for each image, of two kinds."""
    return [
        {"id": f"r{number:02}", "path": f"{number:02}.png", "kind": "ab"[number % 2]}
        for number in range(count)
    ]


def side_of(splits: DatasetSplits) -> dict[str, str]:
    """By id, the side that the row is on."""
    sides = dict.fromkeys(splits.train.samples.ids, "train")
    return sides | dict.fromkeys(splits.valid.samples.ids, "valid")


def same_path(folder: Path) -> str:
    return "00.png"


def other_spelling(folder: Path) -> str:
    return "./00.png"


def through_a_folder(folder: Path) -> str:
    (folder / "sub").mkdir()
    return "sub/../00.png"


def symbolic_link(folder: Path) -> str:
    (folder / "link.png").symlink_to(folder / "00.png")
    return "link.png"


def hard_link(folder: Path) -> str:
    os.link(folder / "00.png", folder / "hard.png")
    return "hard.png"


def copied_bytes(folder: Path) -> str:
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    return "copy.png"


def other_compression(folder: Path) -> str:
    Image.fromarray(pixels(0)[..., ::-1]).save(folder / "again.png", compress_level=0)
    assert (folder / "again.png").read_bytes() != (folder / "00.png").read_bytes()
    return "again.png"


def other_format(folder: Path) -> str:
    write_image(folder / "other.bmp", 0)
    return "other.bmp"


COPIES = (
    same_path,
    other_spelling,
    through_a_folder,
    symbolic_link,
    hard_link,
    copied_bytes,
    other_compression,
    other_format,
)


@pytest.mark.parametrize("cache", ["off", "auto"])
@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_on_the_side_of_its_original(
    folder: Path,
    make_table: Callable[..., Path],
    copy: Callable[[Path], str],
    cache: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For every seed, with the image cache (filled and filled before) and without; and the user is told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    rows = plain_rows()
    rows.append({"id": "copy", "path": copy(folder), "kind": "a"})
    for seed in range(12):
        splits = splits_of(folder, make_table, rows, seed=seed, data={"cache": cache})
        sides = side_of(splits)
        assert sides["copy"] == sides["r00"]
        assert content_counts(splits) == {"rows": 2, "images": 1, "conflicts": 0}
        warning = "2 rows hold an image that another row holds too (1 different images)"
        assert [text for text in splits.warnings if "image" in text] == [
            f"{warning}; rows with the same image are never in two splits"
        ]
        splits.close()


def test_copies_bind_the_groups_of_a_table(folder: Path, make_table: Callable[..., Path]) -> None:
    """Two people with one image between them are on the same side with all of their rows."""
    rows = [row | {"person": f"p{number // 2}"} for number, row in enumerate(plain_rows())]
    rows[10]["path"] = rows[1]["path"]
    for seed in range(12):
        sides = side_of(splits_of(folder, make_table, rows, data={"group": "person"}, seed=seed))
        assert len({sides[f"r{number:02}"] for number in (0, 1, 10, 11)}) == 1


def test_the_bootstrap_draws_copies_together(folder: Path, make_table: Callable[..., Path]) -> None:
    """Without copies its groups are those of the table, None if that has none."""
    plain = splits_of(folder, make_table, plain_rows())
    assert resampling_groups(plain.train.samples, plain.targets) is None
    people = [row | {"person": f"p{number // 2}"} for number, row in enumerate(plain_rows())]
    grouped = splits_of(folder, make_table, people, data={"group": "person"}).train.samples
    assert resampling_groups(grouped, plain.targets) == grouped.groups

    rows = [*plain_rows(), {"id": "copy", "path": "00.png", "kind": "a"}]
    splits = splits_of(folder, make_table, rows)
    samples = next(split.samples for split in (splits.train, splits.valid) if "copy" in split.samples.ids)
    groups = dict(zip(samples.ids, resampling_groups(samples, splits.targets) or (), strict=True))
    assert groups["copy"] == groups["r00"]
    assert len(set(groups.values())) == len(samples) - 1


def test_without_copies_the_contents_change_nothing(folder: Path, make_table: Callable[..., Path]) -> None:
    """The split of different images is that of the same rows with other different images."""
    first = side_of(splits_of(folder, make_table, plain_rows()))
    for number in range(30):
        write_image(folder / f"{number:02}.png", 100 + number)
    splits = splits_of(folder, make_table, plain_rows())
    assert side_of(splits) == first
    assert splits.warnings == ()


def test_the_order_of_the_rows_changes_no_split(folder: Path, make_table: Callable[..., Path]) -> None:
    """With groups and copies: every id is on the same side, however the table is sorted."""
    rows = [row | {"person": f"p{number // 2}"} for number, row in enumerate(plain_rows())]
    rows[20]["path"] = rows[3]["path"]
    first = side_of(splits_of(folder, make_table, rows, data={"group": "person"}))
    for seed in range(5):
        shuffled = [rows[row] for row in np.random.default_rng(seed).permutation(len(rows))]
        assert side_of(splits_of(folder, make_table, shuffled, data={"group": "person"})) == first


# Images that recur in several queries


MATCH = {"match": {"column": "relevance", "type": "ranking", "query": "query"}}


def recurring_rows(queries: int = 24) -> list[Row]:
    """Queries of four images each out of the 30, so that images link all of them."""
    rng = np.random.default_rng(0)
    return [
        {
            "id": f"q{query:02}-{number}",
            "path": f"{image:02}.png",
            "query": f"q{query:02}",
            "relevance": number % 2,
        }
        for query in range(queries)
        for number, image in enumerate(rng.choice(30, 4, replace=False))
    ]


def test_queries_are_split_although_their_images_recur(folder: Path, make_table: Callable[..., Path]) -> None:
    """Exactly in the wanted share, whole; and how many images are in both splits is said."""
    for seed in range(5):
        splits = splits_of(folder, make_table, recurring_rows(), MATCH, data={"valid": 0.25}, seed=seed)
        queries = [set(split.samples.frame["query"]) for split in (splits.train, splits.valid)]
        assert not queries[0] & queries[1]
        assert [len(found) for found in queries] == [18, 6]

        crossing = len(set(splits.train.samples.names) & set(splits.valid.samples.names))
        counts = content_counts(splits)
        assert counts["rows"] > len(splits.valid.samples)
        assert splits.warnings == (
            f"{counts['rows']} rows hold an image that another row holds too ({counts['images']} different images);"
            " with a ranking target, queries are kept whole and not images:"
            f" {crossing} of the images are in more than one split",
        )
        assert leak_warning(splits) is None


def test_the_interval_of_recurring_images_has_queries_as_units(
    folder: Path, make_table: Callable[..., Path]
) -> None:
    """Merged by their images, 24 queries would be one unit, too few for an interval."""
    splits = splits_of(folder, make_table, recurring_rows(30), MATCH, data={"valid": 0.8})
    samples, targets_N2 = splits.valid.samples, torch.from_numpy(splits.valid.labels["match"])
    assert resampling_groups(samples, splits.targets) is None
    metric = RankingMetric(keep_rows=True)
    metric.update(torch.rand(len(samples), generator=torch.Generator().manual_seed(0)), targets_N2)
    assert set(metric.intervals(resampling_groups(samples, splits.targets), 0, 50).scores) >= {"ndcg", "mrr"}


def test_other_targets_of_recurring_images_are_warned_of(
    folder: Path, make_table: Callable[..., Path]
) -> None:
    """Their scores may be too high; and contradictions are found across the splits."""
    rows = [row | {"kind": "ab"[number % 2]} for number, row in enumerate(recurring_rows())]
    splits = splits_of(folder, make_table, rows, {"kind": {"column": "kind"}} | MATCH, metric="kind.macro_f1")
    warnings = [text for text in splits.warnings if "image" in text]
    assert warnings[0].endswith("in more than one split, so the scores of the other targets may be too high")
    kinds: dict[str, set[str]] = {}
    for row in rows:
        kinds.setdefault(row["path"], set()).add(row["kind"])
    assert content_counts(splits)["conflicts"] == sum(len(found) == 2 for found in kinds.values())


# What links most rows is named


def test_a_group_that_cannot_be_split_is_named(folder: Path, make_table: Callable[..., Path]) -> None:
    """Its size, and what its rows share: a placeholder image that joins many people, or one name in data.group."""
    rows = [row | {"person": f"p{number // 3}"} for number, row in enumerate(plain_rows())]
    for row in rows[::3]:
        row["path"] = "00.png"
    with pytest.raises(DataError) as error:
        splits_of(folder, make_table, rows, data={"group": "person"})
    assert "leaves one side of the split empty (data.valid); only one group holds kind=a, kind=b" in str(
        error.value
    )
    assert str(error.value).endswith(
        "; one group holds 30 of the 30 rows, linked by a group (data.group: 'p0' in 3 rows)"
        " and an image ('00.png' in 10 rows)"
    )

    # Without classes, which need both sides, one side is empty.
    numbers = [row | {"kind": number} for number, row in enumerate(rows)]
    number = {"kind": {"column": "kind", "type": "regression"}}
    for share, what in (
        ({"valid": 0.3}, "one side of the split empty"),
        ({"test": 0.3}, "no row for the test"),
    ):
        with pytest.raises(
            DataError, match=rf"leaves {what} \(data\.\w+\); one group holds 30 of the 30 rows"
        ):
            splits_of(folder, make_table, numbers, number, data={"group": "person"} | share)


def test_a_query_that_cannot_be_split_is_named(folder: Path, make_table: Callable[..., Path]) -> None:
    """A single query, whose images are not to blame."""
    rows = [row | {"query": "all"} for row in recurring_rows()]
    with pytest.raises(DataError) as error:
        splits_of(folder, make_table, rows, MATCH)
    assert str(error.value).endswith(
        "; one group holds 96 of the 96 rows, linked by a query (targets.match.query: 'all' in 96 rows)"
    )


def test_without_a_large_group_none_is_named(folder: Path, make_table: Callable[..., Path]) -> None:
    """Classes of one row each leave none to validate on."""
    rows = [row | {"kind": row["id"]} for row in plain_rows()]
    with pytest.raises(DataError, match=r"only one row holds kind=r00, .*, which has to stay in training$"):
        splits_of(folder, make_table, rows)


def test_a_class_with_one_image_is_trained_on(folder: Path, make_table: Callable[..., Path]) -> None:
    """Not validated on, and named: one row, or several of the same image."""
    rows = plain_rows()
    rows[0]["kind"] = "c"
    splits = splits_of(folder, make_table, rows)
    assert "r00" in splits.train.samples.ids
    assert any("no validation rows for kind=c: only one row each, which" in text for text in splits.warnings)
    rows[1] |= {"kind": "c", "path": rows[0]["path"]}
    splits = splits_of(folder, make_table, rows)
    assert {"r00", "r01"} <= set(splits.train.samples.ids)
    assert any(
        "only one group each (rows with the same image are one group)" in text for text in splits.warnings
    )


# Contradictory labels


@pytest.mark.parametrize(
    ("target", "first", "second", "message"),
    [
        ({}, "a", "b", "'a' in 'r00' (00.png) and 'b' in 'copy' (00.png)"),
        (
            {"type": "ordinal", "labels": ["a", "b"]},
            "a",
            "b",
            "'a' in 'r00' (00.png) and 'b' in 'copy' (00.png)",
        ),
        ({"type": "multilabel"}, "a|b", "a", "'a|b' in 'r00' (00.png) and 'a' in 'copy' (00.png)"),
        ({"type": "regression"}, "1.5", "2", "1.5 in 'r00' (00.png) and 2.0 in 'copy' (00.png)"),
    ],
)
def test_contradictory_labels_are_named(
    folder: Path, make_table: Callable[..., Path], target: Row, first: str, second: str, message: str
) -> None:
    """The two rows and what each says, for every type of target whose labels belong to the image; and counted."""
    rows = plain_rows()
    if target.get("type") == "regression":
        rows = [row | {"kind": number} for number, row in enumerate(rows)]
    rows[0]["kind"] = first
    rows.append({"id": "copy", "path": "00.png", "kind": second})
    targets = {"kind": {"column": "kind"} | target}
    splits = splits_of(folder, make_table, rows, targets=targets)
    assert f"1 image with contradictory labels: kind is {message}" in splits.warnings
    assert content_counts(splits)["conflicts"] == 1

    # The same label, and an unknown one, contradict nothing.
    for harmless in (first, ""):
        rows[-1]["kind"] = harmless
        data = {"unlabeled": "skip"}
        splits = splits_of(folder, make_table, rows, targets=targets, data=data)
        assert content_counts(splits)["conflicts"] == 0


def test_many_contradictions_are_counted_and_some_named(
    folder: Path, make_table: Callable[..., Path]
) -> None:
    """Each image once, whatever the number of its rows."""
    rows = plain_rows()
    for number in range(8):
        rows += [{"id": f"c{number}{k}", "path": f"{number:02}.png", "kind": "ab"[k]} for k in range(2)]
    splits = splits_of(folder, make_table, rows)
    assert content_counts(splits) == {"rows": 24, "images": 8, "conflicts": 8}
    (warning,) = [text for text in splits.warnings if "contradictory" in text]
    assert warning.startswith("8 images with contradictory labels: kind is ")
    assert warning.endswith("; and 3 more images")
    assert warning.count(" in 'c") == 5


# Between two tables


@pytest.mark.parametrize("copy", [copied_bytes, other_compression, other_format, hard_link, through_a_folder])
def test_a_validation_table_with_a_training_image_is_refused(
    folder: Path, make_table: Callable[..., Path], copy: Callable[[Path], str]
) -> None:
    """Under another name and id; both names are in the message."""
    valid = [row | {"id": f"v{number}"} for number, row in enumerate(plain_rows()[20:])]
    make_table(folder / "valid.csv", valid)
    rows = plain_rows(20)
    data = {"valid": "valid.csv"}
    assert len(splits_of(folder, make_table, rows, data=data).valid.samples) == 10
    name = copy(folder)
    make_table(folder / "valid.csv", [*valid, {"id": "v10", "path": name, "kind": "a"}])
    with pytest.raises(DataError) as error:
        splits_of(folder, make_table, rows, data=data)
    assert "valid.csv (data.valid): 1 of 11 rows hold an image that is in" in str(error.value)
    assert f"pixel for pixel: {name!r} is '00.png'" in str(error.value)


def test_a_validation_table_of_copies_is_refused_with_pairs(
    folder: Path, make_table: Callable[..., Path]
) -> None:
    """The first pairs are named, all are counted."""
    valid = []
    for number in range(20):
        write_image(folder / "copies" / f"{number}.png", number)
        valid.append({"id": f"v{number}", "path": f"copies/{number}.png", "kind": "ab"[number % 2]})
    make_table(folder / "valid.csv", valid)
    with pytest.raises(DataError, match=r"20 of 20 rows hold an image.* and 15 more; training") as error:
        splits_of(folder, make_table, plain_rows(), data={"valid": "valid.csv"})
    assert str(error.value).count(" is '") == 5


def test_a_validation_row_with_the_path_of_a_training_row_is_refused(
    folder: Path, make_table: Callable[..., Path]
) -> None:
    """By its path, before any pixels are compared: other ids do not hide it."""
    make_table(folder / "valid.csv", [row | {"id": f"v{row['id']}"} for row in plain_rows()[19:]])
    with pytest.raises(DataError, match=r"data\.valid\): image '.*19\.png' is in .* \(1 in all\)"):
        splits_of(folder, make_table, plain_rows(20), data={"valid": "valid.csv"})


def test_two_class_folders_with_one_image(tmp_path: Path) -> None:
    """A folder of class folders has no groups and no ids but its paths, and its copies count all the same."""
    for number in range(20):
        write_image(tmp_path / "data" / "ab"[number % 2] / f"{number}.png", number)
    write_image(tmp_path / "data" / "b" / "copy.png", 0)
    tree = {
        "data": {"source": "data", "valid": 0.3, "workers": 0, "cache": "off"},
        "targets": {"label": {"column": "label"}},
        "model": {"image_size": [8, 8]},
    }
    for seed in range(8):
        config = absolute_paths(make_config(tree | {"seed": seed}), tmp_path)
        splits = prepare(config, Console(quiet=True))
        sides = side_of(splits)
        assert sides["a/0.png"] == sides["b/copy.png"]
        assert (
            "1 image with contradictory labels: label is 'a' in 'a/0.png' and 'b' in 'b/copy.png'"
            in splits.warnings
        )


# Tables and folders of their own


def numbered_rows(first: int, count: int) -> list[Row]:
    """Rows with ids from 0, of images from `first`."""
    return [
        {"id": str(number), "path": f"{first + number:02}.png", "kind": "ab"[number % 2]}
        for number in range(count)
    ]


def test_two_tables_may_both_number_their_rows_from_0(folder: Path, make_table: Callable[..., Path]) -> None:
    """Ids are names within a table; the images are what must not be shared."""
    make_table(folder / "valid.csv", numbered_rows(20, 10))
    splits = splits_of(folder, make_table, numbered_rows(0, 20), data={"valid": "valid.csv"})
    assert splits.train.samples.ids[:10] == splits.valid.samples.ids
    assert not set(splits.train.samples.names) & set(splits.valid.samples.names)


def test_two_folders_numbered_from_0_share_only_files_that_are_the_same(
    folder: Path, make_table: Callable[..., Path]
) -> None:
    """Names alone say nothing; a copy under another name in another class folder is named with its original."""
    for number in range(20):
        write_image(folder / "train" / "ab"[number % 2] / f"{number // 2}.png", number)
        write_image(folder / "valid" / "ab"[number % 2] / f"{number // 2}.png", 100 + number)
    data = {"source": "train", "valid": "valid", "id": "path"}
    targets = {"kind": {"column": "label"}}
    splits = splits_of(folder, make_table, plain_rows(), targets, data)
    assert splits.train.samples.ids == splits.valid.samples.ids

    (folder / "valid/b/copy.png").write_bytes((folder / "train/a/3.png").read_bytes())
    with pytest.raises(DataError, match=r"1 of 21 rows .* 'b/copy.png' is 'a/3.png'"):
        splits_of(folder, make_table, plain_rows(), targets, data)


def test_the_same_file_by_another_path_is_the_same(folder: Path, make_table: Callable[..., Path]) -> None:
    """A dot in the path, or a second name of the file on the disk."""
    os.link(folder / "03.png", folder / "other.png")
    rows = numbered_rows(20, 10)
    for path in ("./03.png", "other.png"):
        make_table(folder / "valid.csv", [*rows, {"id": "x", "path": path, "kind": "b"}])
        with pytest.raises(DataError, match=r"03\.png"):
            splits_of(folder, make_table, numbered_rows(0, 20), data={"valid": "valid.csv"})


def test_oversampled_rows_with_ids_of_their_own_stay_together(
    folder: Path, make_table: Callable[..., Path]
) -> None:
    """A rare class three times in the table, also as files of the same bytes under other names."""
    rows = plain_rows()
    for number in range(1, 30, 2):
        (folder / f"copy{number}.png").write_bytes((folder / f"{number:02}.png").read_bytes())
        rows.append({"id": f"again{number}", "path": f"{number:02}.png", "kind": "b"})
        rows.append({"id": f"copy{number}", "path": f"copy{number}.png", "kind": "b"})
    for seed in range(5):
        sides = side_of(splits_of(folder, make_table, rows, seed=seed))
        for number in range(1, 30, 2):
            assert len({sides[id] for id in (f"r{number:02}", f"again{number}", f"copy{number}")}) == 1

"""The drawn shapes: what the table says is what the images show, and it can be learned."""

import itertools
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classwise.config.load import load_config, make_config
from classwise.demo.shapes import COLOURS, COLUMNS, KINDS, RED_CUTS, SCENE, SHAPES, SIDE, SIZES, write_shapes
from classwise.errors import DataError, OutputError
from tests.helpers.tables import read_csv

ROWS = 400
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("모양 'shapes'")
    write_shapes(path, rows=ROWS, seed=4)
    return path


@pytest.fixture(scope="module")
def table(folder: Path) -> list[dict[str, str]]:
    return read_csv(folder / "samples.csv")


@pytest.fixture(scope="module")
def images(folder: Path, table: list[dict[str, str]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder / row["path"])) for row in table]).astype(float)


def shapes_of(row: dict[str, str]) -> list[str]:
    return [name for name in row["shapes"].split("|") if name]


def covered(image_HWC: np.ndarray) -> np.ndarray:
    """(H, W): which pixels are in strong colour; ground and noise are grayish."""
    return np.ptp(image_HWC, axis=-1) > 75


def test_table_names_every_image_once(folder: Path, table: list[dict[str, str]]) -> None:
    """One row an image, 48 x 48, in colour, paths relative to the folder."""
    assert tuple(table[0]) == COLUMNS
    assert len(table) == ROWS
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    assert sorted(row["path"] for row in table) == written
    for row in table:
        with Image.open(folder / row["path"]) as image:
            assert (image.size, image.mode) == ((SIDE, SIDE), "RGB")


def test_every_answer_is_allowed(table: list[dict[str, str]]) -> None:
    """Labels are the known ones, kinds stand once each in one order, area has one decimal, relevance is 0 to 3."""
    kinds = list(KINDS)
    for row in table:
        assert [kind for kind in kinds if kind in shapes_of(row)] == shapes_of(row)
        assert row["shapes"] == ("|".join(shapes_of(row)) or "|")
        assert row["colour"] in {"", *COLOURS}
        assert row["size"] in {"", *SIZES}
        assert re.fullmatch(r"(\d+\.\d)?", row["area"])
        assert row["relevance"] in {"0", "1", "2", "3"}


@pytest.mark.parametrize("column", ["colour", "size", "area"])
def test_tables_without_gaps(folder: Path, table: list[dict[str, str]], column: str) -> None:
    """For each column that has empty cells there is a table of the other rows, in the same order."""
    assert read_csv(folder / f"{column}.csv") == [row for row in table if row[column]]


def test_long_tails(table: list[dict[str, str]]) -> None:
    """Each colour and kind is rarer than the one before; none is missing; the levels of size are balanced."""
    colours = Counter(row["colour"] for row in table)
    kinds = Counter(kind for row in table for kind in shapes_of(row))
    for counts, names in ((colours, list(COLOURS)), (kinds, list(KINDS))):
        in_order = [counts[name] for name in names]
        assert in_order == sorted(in_order, reverse=True)
        assert in_order[0] > 5 * in_order[-1] > 0
    sizes = Counter(row["size"] for row in table if row["size"])
    assert min(sizes.values()) > 0.8 * max(sizes.values())


def test_empty_cells(table: list[dict[str, str]]) -> None:
    """One known cell in twenty of colour, size and area is empty; without a shape there is no colour and no size,
    and the area is 0; no other column has an empty cell."""
    shapeless = [row for row in table if not shapes_of(row)]
    assert 0 < len(shapeless) < 0.06 * ROWS
    assert all(not row["colour"] and not row["size"] and row["area"] in {"", "0.0"} for row in shapeless)
    drawn = [row for row in table if shapes_of(row)]
    assert sum(not row["colour"] for row in drawn) == round(0.05 * len(drawn))
    assert sum(not row["size"] for row in drawn) == round(0.05 * len(drawn))
    assert sum(not row["area"] for row in table) == round(0.05 * ROWS)
    assert all(row[column] for row in table for column in ("path", "scene", "shapes", "query", "relevance"))


def test_scenes_and_queries_hold_eight_images(table: list[dict[str, str]]) -> None:
    """A query is never cut by a split that keeps scenes together, and its rows do not stand side by side."""
    rows_of = defaultdict(list)
    for number, row in enumerate(table):
        rows_of[row["scene"], row["query"]].append(number)
    assert {len(rows) for rows in rows_of.values()} == {SCENE}
    assert len({scene for scene, _ in rows_of}) == len({query for _, query in rows_of}) == len(rows_of)
    assert np.median([max(rows) - min(rows) for rows in rows_of.values()]) > ROWS / 2


def test_most_queries_can_be_ordered(table: list[dict[str, str]]) -> None:
    """Nine of ten queries hold a relevant image and one that is not."""
    levels = defaultdict(set)
    for row in table:
        levels[row["query"]].add(int(row["relevance"]))
    assert np.mean([0 in found and max(found) > 0 for found in levels.values()]) > 0.9


def test_images_of_a_scene_share_their_ground(table: list[dict[str, str]], images: np.ndarray) -> None:
    """The median colour of what no shape covers differs far less within scenes than between them."""
    grounds = defaultdict(list)
    for row, image_HWC in zip(table, images, strict=True):
        grounds[row["scene"]].append(np.median(image_HWC[~covered(image_HWC)], axis=0))
    within = np.mean([np.std(found, axis=0) for found in grounds.values()])
    between = np.std([np.mean(found, axis=0) for found in grounds.values()], axis=0).mean()
    assert within < between / 4


def test_area_is_what_the_image_shows(table: list[dict[str, str]], images: np.ndarray) -> None:
    """Counted in the image, within two per cent of the image on average, and nearly perfectly correlated."""
    known = [(float(row["area"]), image) for row, image in zip(table, images, strict=True) if row["area"]]
    stated = np.array([area for area, _ in known])
    counted = np.array([100 * covered(image).mean() for _, image in known])
    assert np.corrcoef(stated, counted)[0, 1] > 0.97
    assert np.abs(stated - counted).mean() < 2


def test_relevance_is_how_much_is_red(table: list[dict[str, str]], images: np.ndarray) -> None:
    """Cuts at RED_CUTS of the red share, counted in the image, give the stated relevance but at the cuts."""
    counted = []
    for image in images:
        red, green, blue = np.moveaxis(image, -1, 0)
        counted.append(100 * ((red - green > 70) & (red - blue > 70) & covered(image)).mean())
    stated = np.array([int(row["relevance"]) for row in table])
    guessed = np.digitize(counted, RED_CUTS)
    assert np.mean(guessed == stated) > 0.85
    assert np.abs(guessed - stated).max() <= 1


def test_size_follows_the_area(table: list[dict[str, str]]) -> None:
    """The mean area rises with every level of size, by a quarter at least."""
    means = [
        np.mean([float(row["area"]) for row in table if row["size"] == size and row["area"]])
        for size in SIZES
    ]
    assert all(low * 1.25 < high for low, high in itertools.pairwise(means))


def test_colour_is_that_of_the_image(table: list[dict[str, str]], images: np.ndarray) -> None:
    """The mean of the coloured pixels, each class against the class means, tells the colour nearly always."""
    rows = [
        (row["colour"], np.median(image[covered(image)], axis=0))
        for row, image in zip(table, images, strict=True)
        if row["colour"]
    ]
    middles = {name: np.median([tone for label, tone in rows if label == name], axis=0) for name in COLOURS}
    guessed = [min(middles, key=lambda name: np.abs(middles[name] - tone).sum()) for _, tone in rows]
    assert np.mean([guess == label for guess, (label, _) in zip(guessed, rows, strict=True)]) > 0.9


def test_seed_decides_every_byte(tmp_path: Path) -> None:
    """The same seed writes the same files with the same bytes; another seed writes others."""
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shapes(tmp_path / name, rows=48, seed=seed)
    files = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
            if path.is_file()
        }
        for name in "abc"
    }
    assert len(files["a"]) == 48 + 4
    assert files["a"] == files["b"]
    assert all(files["a"][path] != files["c"][path] for path in files["a"])


@pytest.mark.parametrize("rows", [40, 45])
def test_smallest_sets(tmp_path: Path, rows: int) -> None:
    """Any number of rows from 40 on can be drawn (the last scene then holds fewer), with every size and all colours but
    perhaps the rarest."""
    write_shapes(tmp_path, rows=rows, seed=2)
    table = read_csv(tmp_path / "samples.csv")
    assert len(table) == rows
    assert {row["size"] for row in table} >= set(SIZES)
    assert {row["colour"] for row in table} >= {"red", "green", "blue", "yellow"}
    assert max(Counter(row["scene"] for row in table).values()) == SCENE


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    """Fewer than five scenes make no split; nothing is written."""
    with pytest.raises(DataError, match=r"rows = 39.*at least 40"):
        write_shapes(tmp_path / "out", rows=39)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["samples.csv", "size.csv", "images"])
def test_what_stands_there_is_not_overwritten(tmp_path: Path, name: str) -> None:
    """A table or a folder of images that exists is kept, and nothing is written beside it."""
    (tmp_path / name).mkdir() if name == "images" else (tmp_path / name).write_text("mine")
    with pytest.raises(OutputError, match=f"{name} already exists"):
        write_shapes(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [name]


def test_config_of_the_demo_trains_every_type() -> None:
    """Five targets, five types, on images as large as they are drawn, best by a long-tailed target's macro F1."""
    config = make_config(SHAPES)
    types = {target.type for target in config.targets.values()}
    assert types == {"class", "multilabel", "ordinal", "regression", "ranking"}
    assert config.model.image_size == (SIDE, SIDE)
    assert config.targets["size"].labels == tuple(SIZES)
    assert config.data.group == "scene"
    assert config.selection.metric == "colour.macro_f1"


@pytest.mark.parametrize("type_", ["class", "multilabel", "ordinal", "regression", "ranking", "all-targets"])
def test_examples_name_what_is_drawn(type_: str) -> None:
    """Columns and labels in examples/ are those of the table, and each file has the target type it is named for."""
    config = load_config(EXAMPLES / f"{type_}.toml")
    labels = {"colour": set(COLOURS), "shapes": set(KINDS), "size": set(SIZES)}
    for target in config.targets.values():
        assert target.column in COLUMNS
        assert set(target.labels or ()) == labels.get(str(target.column), set())
        assert target.query in {None, "query"}
    types = {target.type for target in config.targets.values()}
    assert types == ({type_} if type_ != "all-targets" else {target["type"] for target in _demo_targets()})


def _demo_targets() -> list[dict[str, str]]:
    return [{"type": "class", **target} for target in SHAPES["targets"].values()]

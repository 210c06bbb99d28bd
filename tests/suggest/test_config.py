"""`classwise init`: what it recognizes in a folder, a table and a competition tree, and the config that it writes."""

import sys
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from classwise.compose.dataset import prepare
from classwise.compose.packing import pack_source
from classwise.config.load import load_config, make_config
from classwise.config.schema import Config
from classwise.console import Console
from classwise.data.table import read_table
from classwise.errors import DataError, OutputError
from classwise.model.packaged_weights import PACKAGES
from classwise.suggest.config import init, look_at
from classwise.suggest.source import guess_source
from tests.helpers.scenes import class_folder, draw, plain_table, untouched, write_csv

KINDS = ("mask1.jpg", "mask2.png", "mask3.jpeg", "mask4.jpg", "mask5.jpg", "incorrect_mask.jpg", "normal.jpg")


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no package with pretrained weights were installed: configs are for the built-in network."""
    for package in PACKAGES.values():
        monkeypatch.setitem(sys.modules, package.module, None)


def table(
    folder: Path, columns: dict[str, list[Any]], name: str = "train.csv", images: str = "images"
) -> Path:
    """A table with these columns beside `path`, whose images lie in `images`."""
    rows = len(next(iter(columns.values())))
    for row in range(rows):
        draw(folder / images / f"{row}.png", row % 3, row)
    header = ["path", *columns]
    return write_csv(
        folder / name,
        header,
        list(zip((f"{row}.png" for row in range(rows)), *columns.values(), strict=True)),
    )


def competition(folder: Path) -> Path:
    """The face-mask tree with six people, an id that stands twice, and the junk that macOS leaves."""
    rows = []
    for number, (gender, age) in enumerate([("male", 20), ("female", 30), ("male", 60)] * 2):
        id = "000600-1" if number in (1, 3) else f"{number:06}"
        name = f"{id}_{gender}_Asian_{age}_{number}"
        for seed, file in enumerate(KINDS):
            draw(folder / "train" / "images" / name / file, seed % 3, number, size=16)
            (folder / "train" / "images" / name / f"._{file}").write_bytes(b"junk")
        rows.append([id, gender, "Asian", age, name])
    write_csv(folder / "train" / "train.csv", ("id", "gender", "race", "age", "path"), rows)
    return folder


def unreadable(folder: Path) -> Path:
    """Class folders whose files are named as images and are none."""
    for path in class_folder(folder, {"a": 2, "b": 2}).rglob("*.png"):
        path.write_bytes(b"")
    return folder


def loads(path: Path) -> Config:
    """The config of a file; its data can be prepared as it stands."""
    config = load_config(path)
    prepare(config, Console(quiet=True))
    return config


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    """Every image with its folder's name, in samples.csv; nothing is written into the source."""
    source = class_folder(tmp_path / "옷 사진", {"바지": 3, 'it\'s "red"': 4})
    (source / "바지" / "._00.png").write_bytes(b"junk")
    with untouched(source):
        path = init(source, tmp_path / "new" / "place")
    assert path == tmp_path / "new" / "place" / "classwise.toml"
    samples = read_table(path.with_name("samples.csv"))
    assert samples.columns == ["path", "label"]
    assert samples.rows() == [
        *((f'it\'s "red"/{seed:02}.png', 'it\'s "red"') for seed in range(4)),
        *((f"바지/{seed:02}.png", "바지") for seed in range(3)),
    ]
    config = loads(path)
    assert Path(config.data.images) == source
    assert config.name == "옷 사진"
    assert {name: target.column for name, target in config.targets.items()} == {"label": "label"}


def test_a_table_is_used_where_it_stands(tmp_path: Path) -> None:
    """No copy is made; images is the folder in which the paths exist."""
    source = table(tmp_path / "data", {"label": ["a", "b"] * 4})
    path = init(source, tmp_path)
    config = loads(path)
    assert Path(config.data.source) == source
    assert Path(config.data.images) == tmp_path / "data" / "images"
    assert not (tmp_path / "samples.csv").exists()
    assert tomllib.loads(path.read_text(encoding="utf-8"))["data"]["source"] == "data/train.csv"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_every_kind_of_table(tmp_path: Path, suffix: str) -> None:
    """A table is recognized by its suffix, and a folder that holds one is that table."""
    plain_table(tmp_path, 8)
    frame = pl.read_csv(tmp_path / "samples.csv")
    (tmp_path / "samples.csv").unlink()
    source = tmp_path / f"samples{suffix}"
    if suffix == ".parquet":
        frame.write_parquet(source)
    else:
        frame.write_csv(source, separator="\t" if suffix == ".tsv" else ",")
    assert load_config(init(source, tmp_path / "one")).data.source == str(source)
    assert load_config(init(tmp_path, tmp_path / "two")).data.source == str(source)


def test_the_competition_tree(tmp_path: Path) -> None:
    """Three targets, the joint class in the competition's order, people as groups, ids as text, no junk."""
    path = init(competition(tmp_path / "tree"), tmp_path / "out")
    config = loads(path)
    assert list(config.targets) == ["mask", "gender", "age"]
    assert config.targets["mask"].labels == ("wear", "incorrect", "normal")
    assert config.targets["gender"].labels == ("male", "female")
    assert config.targets["age"].edges == (30.0, 60.0)
    assert config.joint is not None
    assert config.joint.targets == ("mask", "gender", "age")
    assert config.data.group == "person"
    samples = read_table(path.with_name("samples.csv"))
    assert samples.columns == ["path", "person", "mask", "gender", "age"]
    assert samples.height == 6 * 7
    assert (samples["person"] == "000600-1").sum() == 14
    assert samples["mask"].value_counts().sort("mask")["count"].to_list() == [6, 6, 30]
    assert not any("._" in cell for cell in samples["path"])


def test_the_train_folder_of_the_competition_tree(tmp_path: Path) -> None:
    """Naming tree/train is the same as naming the tree."""
    tree = competition(tmp_path / "tree")
    one = init(tree, tmp_path / "one").with_name("samples.csv")
    two = init(tree / "train", tmp_path / "two").with_name("samples.csv")
    assert one.read_bytes() == two.read_bytes()


ROWS = 12


@pytest.mark.parametrize(
    ("columns", "data", "targets"),
    [
        ({"label": ["a", "b"] * 6}, {}, ["label"]),
        ({"Class": ["a", "b"] * 6, "notes": ["x", "y"] * 6}, {}, ["Class"]),
        ({"colour": ["a", "b"] * 6, "size": ["s", "m", "l"] * 4}, {}, ["colour", "size"]),
        (
            {"image_id": [f"{n:03}" for n in range(12)], "label": ["a", "b"] * 6},
            {"id": "image_id"},
            ["label"],
        ),
        ({"id": ["1", "2"] * 6, "label": ["a", "b"] * 6}, {}, ["label"]),  # not unique, so it names no row
        (
            {"Person": [n // 2 for n in range(12)], "label": ["a", "a", "b", "b"] * 3},
            {"group": "Person"},
            ["label"],
        ),
        ({"person": list(range(12)), "label": ["a", "b"] * 6}, {}, ["label"]),  # a group a row is no group
        ({"colour": ["a", "b"] * 6, "gap": ["x", "", "y", "x"] * 3}, {}, ["colour", "gap"]),
        ({"gap": ["x", "", "y", "x"] * 3}, {"unlabeled": "skip"}, ["gap"]),
        ({"colour": ["a", "b"] * 6, "rare": ["x"] * 11 + ["y"]}, {}, ["colour"]),
        ({"colour": ["a", "b"] * 6, "weight": [n + 0.5 for n in range(12)]}, {}, ["colour"]),
        ({"age": [20, 30, 40] * 4}, {}, ["age"]),
    ],
)
def test_what_the_columns_are_taken_for(
    tmp_path: Path, columns: dict[str, list[Any]], data: dict[str, str], targets: list[str]
) -> None:
    """Path, id, group and answers, by name and by what the cells hold."""
    guess = guess_source(table(tmp_path, columns))
    assert guess.data == {"path": "path", **data}
    assert [target["column"] for target in guess.targets.values()] == targets


def test_several_labels_in_a_cell_and_numbers_have_their_types(tmp_path: Path) -> None:
    """Cells with a separator are multilabel; numbers of many values a regression, where nothing else is a target;
    and what is written trains."""
    tags = ["sea|sky", "sky", "sea", "|"] * 3
    guess = guess_source(table(tmp_path, {"tags": tags, "colour": ["a", "b"] * 6}))
    assert guess.targets["tags"] == {"column": "tags", "type": "multilabel", "separator": "|"}
    assert guess.targets["colour"] == {"column": "colour"}
    source = table(tmp_path / "b", {"weight": [n + 0.5 for n in range(12)]})
    assert guess_source(source).targets == {"weight": {"column": "weight", "type": "regression"}}
    config = load_config(init(source, tmp_path / "out"))
    assert (config.selection.metric, config.loss_of("weight").name) == ("mae", "mse")


@pytest.mark.parametrize(
    ("columns", "one"),
    [
        ({"colour": ["a", "b"] * 6, "size": ["low", "mid", "high"] * 4}, "colour.macro_f1"),
        ({"size": ["low", "mid", "high"] * 4, "colour": ["a", "b"] * 6}, "size.macro_f1"),
        ({"weight": [n + 0.5 for n in range(12)], "height": [n * n for n in range(12)]}, "weight.r2"),
    ],
)
def test_several_targets_select_by_their_mean(
    tmp_path: Path, no_weights: None, columns: dict[str, list[Any]], one: str
) -> None:
    """Not by the first one alone; the comment says what it is a mean of, and how to name one of them."""
    path = init(table(tmp_path, columns), tmp_path / "out")
    config = loads(path)
    assert config.selection.metric == "mean"
    line = next(
        line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith('metric = "mean"')
    )
    assert "the mean of each target's main score" in line
    assert f'"{one}"' in line
    path.write_text(path.read_text(encoding="utf-8").replace('metric = "mean"', f'metric = "{one}"'))
    assert load_config(path).selection.metric == one
    # A class target has class shares, wherever it stands.
    assert config.selection.prior == ("as_validation" if "colour" in columns else None)


def test_one_target_and_a_joint_class_have_their_own_metric(tmp_path: Path) -> None:
    """No mean where there is one number to select by."""
    assert load_config(init(competition(tmp_path / "tree"), tmp_path / "a")).selection.metric == "macro_f1"
    source = table(tmp_path / "data", {"label": ["a", "b"] * 6})
    assert load_config(init(source, tmp_path / "b")).selection.metric == "macro_f1"


SEVERITY = ["severe", "none", "mild"]


def test_ordered_labels_of_a_table(tmp_path: Path) -> None:
    """Names that say an order make an ordinal target, with its labels from the lowest to the highest; the comment says
    why; and what is written trains."""
    severity = [*SEVERITY * 3, "", *SEVERITY[:2]]
    source = table(tmp_path, {"severity": severity, "colour": ["a", "b"] * 6})
    path = init(source, tmp_path / "out")
    config = loads(path)
    assert config.targets["severity"].type == "ordinal"
    assert config.targets["severity"].labels == ("none", "mild", "severe")
    assert config.targets["colour"].type == "class"
    line = next(
        line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith('type = "ordinal"')
    )
    assert "severity: ordered levels (none < mild < severe), since their names say an order" in line
    assert "severity (ordinal: none < mild < severe)" in look_at(source, hub=False).summary[0]


def test_ordered_labels_of_a_folder(tmp_path: Path) -> None:
    """The names of class folders are labels as any other; the loss is the default of ordinal targets."""
    source = class_folder(tmp_path / "source", {"grade_2": 4, "grade_10": 4, "grade_1": 4})
    config = loads(init(source, tmp_path / "out"))
    assert config.targets["label"].type == "ordinal"
    assert config.targets["label"].labels == ("grade_1", "grade_2", "grade_10")
    assert config.loss_of("label").name == "corn"
    assert config.selection.prior is None


def test_numbers_may_be_ordered_labels(tmp_path: Path) -> None:
    """They stay classes: the comment has the two keys that make them levels, and with these it trains, too."""
    path = init(table(tmp_path, {"stars": [1, 10, 2] * 4}), tmp_path / "out")
    assert loads(path).targets["stars"].type == "class"
    text = path.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith('type = "class"'))
    proposal = 'type = "ordinal", labels = ["1", "2", "10"]'
    assert line.endswith(f"if the labels are levels of a scale: {proposal}")
    keys = proposal.replace(", labels", "\nlabels")
    changed = text.replace(line, keys).replace('name = "balanced_softmax"', 'name = "corn"')
    assert "[loss]" in changed
    head = changed.split("[loss]")[0]
    path.write_text(head.replace("prior", "# prior"), encoding="utf-8")
    assert loads(path).targets["stars"].labels == ("1", "2", "10")


def test_letters_are_no_order(tmp_path: Path) -> None:
    """Neither a type nor a comment of their own."""
    guess = guess_source(table(tmp_path, {"label": ["A", "B", "C"] * 4}))
    assert guess.targets == {"label": {"column": "label"}}
    assert "targets.label.type" not in guess.notes


def test_a_number_column_is_named_as_left_out(tmp_path: Path) -> None:
    """A column with too many values is no class target as it stands; the comment says what makes it one."""
    source = table(tmp_path, {"colour": ["a", "b"] * 6, "weight": [n + 0.5 for n in range(12)]})
    text = init(source, tmp_path / "out").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith('column = "colour"'))
    assert "not used: weight" in line
    assert "edges" in line


def test_any_column_may_hold_the_paths(tmp_path: Path) -> None:
    """It is found by the files that are there, not by its name."""
    plain_table(tmp_path, 8)
    rows = [[label, path] for path, label in read_table(tmp_path / "samples.csv").rows()]
    write_csv(tmp_path / "samples.csv", ("종류", "사진 파일"), rows)
    guess = guess_source(tmp_path / "samples.csv")
    assert guess.data == {"path": "사진 파일"}
    assert list(guess.targets) == ["종류"]
    loads(init(tmp_path / "samples.csv", tmp_path))


def test_a_column_with_an_odd_name_becomes_a_target(tmp_path: Path) -> None:
    """A target's name is a TOML key and an option; `joint` is kept for the joint class."""
    source = table(tmp_path, {"a.b (c)": ["x", "y"] * 6, "joint": ["u", "v"] * 6})
    config = loads(init(source, tmp_path / "out"))
    assert {name: target.column for name, target in config.targets.items()} == {
        "a_b _c_": "a.b (c)",
        "joint_": "joint",
    }


@pytest.mark.parametrize("kind", ["folder", "table", "tree"])
def test_every_key_has_a_comment(tmp_path: Path, kind: str) -> None:
    """Each line of the file that sets a key, or shows one that could be set, says what it means."""
    source = {
        "folder": lambda: class_folder(tmp_path / "source", {"a": 4, "b": 4}),
        "table": lambda: table(
            tmp_path, {"person": [n // 2 for n in range(12)], "label": ["a", "a", "b", "b"] * 3}
        ),
        "tree": lambda: competition(tmp_path / "source"),
    }[kind]()
    text = init(source, tmp_path / "out").read_text(encoding="utf-8")
    lines = [
        line
        for line in text.splitlines()
        if "=" in line.partition("  # ")[0] and not line.startswith("# Path")
    ]
    assert len(lines) > 30
    assert [line for line in lines if not line.partition("  # ")[2].strip()] == []
    sections = {line for line in text.splitlines() if line.startswith("[")}
    assert sections >= {
        "[data]",
        "[data.augment]",
        "[model]",
        "[loss]",
        "[optimizer]",
        "[schedule]",
        "[training]",
    }
    # What stands there is what holds: every key's value is the config's own, none left to a hidden default.
    written = tomllib.loads(text)
    for section in ("model", "loss", "optimizer", "schedule", "training", "selection"):
        resolved = getattr(make_config(written), section).model_dump(exclude_none=True)
        assert set(written[section]) == set(resolved)


def test_the_size_follows_the_images(tmp_path: Path, no_weights: None) -> None:
    """Small images keep their size and shape, in steps of 4; height comes first."""
    source = class_folder(tmp_path / "small", {"a": 3, "b": 3})
    assert load_config(init(source, tmp_path / "one")).model.image_size == (28, 28)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "gone", "there is no folder or table"),
        (
            lambda folder: write_csv(folder / "x.csv", ("a", "b"), [["1", "2"]]),
            "no column holds paths of files",
        ),
        (
            lambda folder: write_csv(folder / "x.csv", ("a",), [["1.png"]]),
            "column 'a' has names of images, but",
        ),
        (
            lambda folder: table(folder, {"n": [f"no {n}" for n in range(6)]}),
            "found no column with labels among",
        ),
        (lambda folder: class_folder(folder / "s", {"single": 3}), "at least two are needed"),
        (lambda folder: unreadable(folder / "s"), "none of the images that were tried can be read"),
        (lambda folder: write_csv(folder / "x.csv", ("path",), []), "no rows"),
        (lambda folder: write_csv(folder / "x.xlsx", ("path",), []), "a table is .csv, .tsv, .parquet"),
    ],
)
def test_nothing_to_guess(tmp_path: Path, make: Any, message: str) -> None:
    """What cannot be understood is said, and nothing is written."""
    source = make(tmp_path)
    with untouched(tmp_path), pytest.raises(DataError, match=message) as caught:
        init(source, tmp_path / "out")
    assert str(source.parent) in str(caught.value)


@pytest.mark.parametrize("there", ["classwise.toml", "samples.csv"])
def test_files_that_exist_are_kept_unless_forced(tmp_path: Path, there: str) -> None:
    """Neither the config nor the table is overwritten, and then neither of them is written."""
    source, out = class_folder(tmp_path / "source", {"a": 4, "b": 4}), tmp_path / "out"
    out.mkdir()
    (out / there).write_text("precious")
    with untouched(out), pytest.raises(OutputError, match=f"{there} exists already"):
        init(source, out)
    loads(init(source, out, force=True))


# Class shares

TAIL = ["a"] * 8 + ["b"] * 4 + ["c"] * 2


def shares_of(source: Path, out: Path) -> tuple[Any, str]:
    """selection.prior of the written config, and the line on class shares."""
    config = loads(init(source, out))
    lines = [line for line in look_at(source, hub=False).summary if line.startswith("class shares: ")]
    return config.selection.prior, lines[0] if lines else ""


@pytest.mark.parametrize(
    ("test", "prior", "says"),
    [
        (
            ["a", "b", "c"] * 4,
            "balanced",
            "balanced, since test.csv has its classes equally often, label from 2 to 8 rows",
        ),
        (TAIL, "as_validation", "those of the rows here; if classes will be equally frequent"),
        (["c"] * 8 + ["b"] * 4 + ["a"] * 2, "as_validation", "test.csv has others"),
        (
            ["a"] * 12,
            "as_validation",
            "those of the rows here; if classes will be equally frequent",
        ),  # placeholders
        ([""] * 12, "as_validation", "those of the rows here; if classes will be equally frequent"),
        (
            ["a", "b", "d"] * 4,
            "as_validation",
            "those of the rows here; if classes will be equally frequent",
        ),  # other classes
    ],
)
def test_class_shares_follow_a_labeled_test_table(
    tmp_path: Path, no_weights: None, test: list[str], prior: str, says: str
) -> None:
    """Balanced only where a table beside the source is, and the source is not; one line says why."""
    source = table(tmp_path / "data", {"label": TAIL})
    table(tmp_path / "data", {"label": test}, name="test.csv", images="test_images")
    found, line = shares_of(source, tmp_path / "out")
    assert found == prior
    assert says in line


def test_a_test_table_of_other_images_shows_nothing(tmp_path: Path, no_weights: None) -> None:
    """The same classes are not the same data: without its images, or without the column of paths, it is unrelated."""
    source = table(tmp_path / "data", {"label": TAIL})
    other = tmp_path / "data" / "test.csv"
    write_csv(other, ("path", "label"), [(f"elsewhere/{row}z.png", "abc"[row % 3]) for row in range(12)])
    assert shares_of(source, tmp_path / "out")[0] == "as_validation"
    other.write_text("label\n" + "a\nb\nc\n" * 4, encoding="utf-8")
    assert shares_of(source, tmp_path / "out2")[0] == "as_validation"


def test_class_shares_of_shards_are_those_of_their_files(tmp_path: Path, no_weights: None) -> None:
    """A table beside them is none of theirs, as it is none of a folder's; class folders beside both are."""
    folder = class_folder(tmp_path / "train", {"a": 9, "b": 3})
    pack_source(folder, tmp_path / "shards")
    table(tmp_path, {"label": ["a", "b"] * 4}, name="test.csv", images="others")
    sources = (folder, tmp_path / "shards")
    assert [shares_of(source, tmp_path / f"{source.name}-1")[0] for source in sources] == [
        "as_validation"
    ] * 2
    class_folder(tmp_path / "test", {"a": 4, "b": 4})
    assert [shares_of(source, tmp_path / f"{source.name}-2")[0] for source in sources] == ["balanced"] * 2


def test_class_shares_of_a_balanced_source(tmp_path: Path, no_weights: None) -> None:
    """Equal here and there: nothing to choose."""
    source = table(tmp_path / "data", {"label": ["a", "b"] * 6})
    table(tmp_path / "data", {"label": ["a", "b"] * 4}, name="test.csv", images="test_images")
    assert shares_of(source, tmp_path / "out")[0] == "as_validation"


def test_class_shares_follow_a_folder_beside_the_source(tmp_path: Path, no_weights: None) -> None:
    """data/train and data/test, each with a folder per class."""
    source = class_folder(tmp_path / "train", {"a": 9, "b": 3})
    assert shares_of(source, tmp_path / "one")[0] == "as_validation"
    class_folder(tmp_path / "test", {"a": 4, "b": 4})
    found, line = shares_of(source, tmp_path / "two")
    assert found == "balanced"
    assert "since test has its classes equally often, label from 3 to 9 rows here" in line


def test_class_shares_are_for_class_targets(tmp_path: Path, no_weights: None) -> None:
    """A regression has none, and one target's test table says nothing of joint classes."""
    source = table(tmp_path / "data", {"weight": [n + 0.5 for n in range(12)]})
    assert shares_of(source, tmp_path / "one") == (None, "")
    assert shares_of(competition(tmp_path / "tree"), tmp_path / "two")[0] == "as_validation"


def test_from_scratch_means_the_built_in_network(tmp_path: Path) -> None:
    """Whatever weights are at hand, with the recipe for it: no plan, no pooled layers."""
    source = class_folder(tmp_path / "small", {"a": 3, "b": 3})
    config = load_config(init(source, tmp_path / "one", scratch=True))
    assert (config.model.backbone, config.model.weights) == ("small_cnn", "none")
    assert (config.model.pooling, config.plan, config.training.ema) == ("last", "finetune", None)


def test_with_pretrained_weights_classes_count_equally(tmp_path: Path) -> None:
    """The shares of the rows cost rare classes more there than they gain; a balanced test is still a reason."""
    source = class_folder(tmp_path / "train", {"a": 9, "b": 3})
    assert shares_of(source, tmp_path / "one") == (None, "")
    assert "# prior" in (tmp_path / "one" / "classwise.toml").read_text()
    class_folder(tmp_path / "test", {"a": 4, "b": 4})
    assert shares_of(source, tmp_path / "two")[0] == "balanced"


def test_a_pretrained_backbone_gets_the_plan_of_two_stages(tmp_path: Path) -> None:
    """Images of at least 96 px, the maps of several layers, heads first, and an end within minutes."""
    config = load_config(init(class_folder(tmp_path / "small", {"a": 3, "b": 3}), tmp_path / "one"))
    assert config.model.image_size == (96, 96)
    assert config.model.pooling == "layers"
    assert (config.training.plan, config.plan) == ("auto", "probe_then_finetune")
    assert config.training.minutes

"""The grid, the folders' names, and what counts as another config."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classwise.compare.plan import Plan, plan_runs
from classwise.compare.plan_file import lock_folder, outcome_config, read_plan_file
from classwise.compare.variants import Variant, grid, slug
from classwise.config.load import make_config
from classwise.errors import ConfigError, OutputError

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300)


def test_the_grid_is_every_combination() -> None:
    """The first key is the slowest; the first values of all are the baseline."""
    found = grid(["loss.name=cross_entropy,focal", "--optimizer.lr=1e-3, 3e-3"])
    assert [variant.name for variant in found] == [
        "loss.name=cross_entropy,optimizer.lr=1e-3",
        "loss.name=cross_entropy,optimizer.lr=3e-3",
        "loss.name=focal,optimizer.lr=1e-3",
        "loss.name=focal,optimizer.lr=3e-3",
    ]
    assert found[1].overrides == (("loss.name", "cross_entropy"), ("optimizer.lr", "3e-3"))
    assert grid([]) == [Variant("config", ())]


@pytest.mark.parametrize(
    ("vary", "values"),
    [
        ("model.image_size=[64,64],[96,64]", ["[64,64]", "[96,64]"]),
        ('data.source="a,b.csv",c.csv', ['"a,b.csv"', "c.csv"]),
        ("data.source='a,[b.csv',c.csv", ["'a,[b.csv'", "c.csv"]),
        ('joint.targets=["a,b","c"],["d]"]', ['["a,b","c"]', '["d]"]']),
        (
            'loss={name="focal",gamma=1},{name="cross_entropy"}',
            ['{name="focal",gamma=1}', '{name="cross_entropy"}'],
        ),
        ("data.group=it's,who's", ["it's", "who's"]),
        ('data.group="",person', ['""', "person"]),
        ("data.source=a=b.csv", ["a=b.csv"]),
    ],
)
def test_only_top_level_commas_separate(vary: str, values: list[str]) -> None:
    """Lists, tables and quoted texts stay whole."""
    assert [variant.overrides[0][1] for variant in grid([vary])] == values


@pytest.mark.parametrize(
    ("vary", "says"),
    [
        (["loss.name"], "must be KEY=VALUE"),
        (["=focal"], "must be KEY=VALUE"),
        (["a.b=1,,2"], "a value is empty"),
        (["a.b="], "a value is empty"),
        (["a.b=1,2,1"], "a value is given twice"),
        (["a.b=1", "a.b=2"], "--vary a.b: given twice"),
        (["a.b=[1,2"], "not closed"),
        (["a.b=1]"], "not closed"),
        (["a.b='x"], "not closed"),
        (["seed=1,2"], "say how many: --seeds 5"),
    ],
)
def test_an_invalid_grid_says_why(vary: list[str], says: str) -> None:
    """What was typed, and what it must be."""
    with pytest.raises(ConfigError, match=says):
        grid(vary)


@given(st.lists(text, min_size=2, max_size=8, unique=True))
def test_slugs_are_safe_and_unique(names: list[str]) -> None:
    """One plain folder name each, also where the file system takes capitals for small letters."""
    slugs = [slug(name) for name in names]
    assert len({found.lower() for found in slugs}) == len(names)
    for found in slugs:
        assert Path(found).name == found
        assert found.isascii()
        assert found.isprintable()
        assert 0 < len(found) < 100
        assert found[0] not in ".-"


def test_slugs_stay_readable() -> None:
    """What the grid writes is kept as it is; what is lost is made up for by a piece of a hash."""
    assert slug("loss.name=focal,optimizer.lr=3e-3") == "loss.name=focal,optimizer.lr=3e-3"
    assert slug("../../etc/passwd").startswith("etc-passwd-")
    assert slug("compare.csv") != "compare.csv"
    assert slug("Focal").lower() != slug("focal")


def test_the_outcome_config_is_what_decides_the_outcome(tmp_path: Path) -> None:
    """Seed, name, reading processes and the report do not count; any other key does, and so do the table's bytes."""
    table = tmp_path / "t.csv"
    table.write_text("path,label\na,b\n")
    values = {"data": {"source": str(table)}, "targets": {"label": {"column": "label"}}}
    first = outcome_config(make_config(values))
    without = [("seed", "7"), ("name", "x"), ("data.workers", "3"), ("report.resamples", "0")]
    assert outcome_config(make_config(values, without)) == first
    changed = outcome_config(make_config(values, [("training.epochs", "7"), ("loss.name", "focal")]))
    differ = {key for key in {**first, **changed} if first.get(key) != changed.get(key)}
    assert {"training.epochs", "loss.name"} <= differ
    table.write_text("path,label\na,c\n")
    now = outcome_config(make_config(values))
    assert {key for key in first if first[key] != now[key]} == {"data.source (content)"}


def test_a_folder_of_something_else_is_kept(tmp_path: Path) -> None:
    """Neither a strange folder nor a damaged compare.json is written over; two processes do not share one."""
    assert read_plan_file(tmp_path / "new").runs == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is not a comparison"):
        read_plan_file(tmp_path)
    (tmp_path / "compare.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        read_plan_file(tmp_path)
    with (
        lock_folder(tmp_path),
        pytest.raises(OutputError, match="another `classwise compare`"),
        lock_folder(tmp_path),
    ):
        pass
    with lock_folder(tmp_path):
        pass


def plan_of(
    folder: Path, vary: list[str], overrides: tuple[tuple[str, str], ...] = (), more: str = ""
) -> Plan:
    """What a small config with these variants is planned as."""
    (folder / "t.csv").write_text("path,label\na,b\n")
    config = folder / "classwise.toml"
    config.write_text(f'[data]\nsource = "t.csv"\n[targets.label]\ncolumn = "label"\n{more}')
    return plan_runs(config, variants=grid(vary), seeds=2, out=None, overrides=overrides)


def test_a_comparison_from_before_a_key_was_renamed_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """compare.json holds the old name of a key; its value is the same, so the runs are those of this config."""
    monkeypatch.chdir(tmp_path)  # a comparison's folder is made where the command runs
    plan = plan_of(tmp_path, ["training.epochs=1,2"])
    folder = plan.runs[0].folder.parents[1]
    file = read_plan_file(folder)
    file.add(plan.runs, plan.scoring)
    folder.mkdir(parents=True, exist_ok=True)
    file.write()
    content = json.loads(file.path.read_text())
    for variant in content["variants"].values():
        variant["config"]["data.unanswered"] = variant["config"].pop("data.unlabeled")
    file.path.write_text(json.dumps(content))
    for run in plan.runs:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
    read_plan_file(folder).add(plan.runs, plan.scoring)


def test_keys_that_contradict_each_other_are_refused_by_variant(tmp_path: Path) -> None:
    """A conflict of one variant is found in planning, with its name before it; a config without variants has none."""
    with pytest.raises(ConfigError, match=r"^variant loss.name=soft_f1: data.mixup: found 0.5, but"):
        plan_of(tmp_path, ["loss.name=focal,soft_f1"], (("data.mixup", "0.5"),))
    with pytest.raises(ConfigError, match=r"^data.mix_share: found 0.5, but"):
        plan_of(tmp_path, [], (("data.mix_share", "0.5"),))


def test_variants_are_judged_at_one_prior(tmp_path: Path) -> None:
    """Scores at different class shares cannot be compared; without a prior rows count as with as_validation."""
    with pytest.raises(
        ConfigError, match=r"^selection.prior: the variants are judged at as_validation and balanced;"
    ):
        plan_of(tmp_path, ["selection.prior=as_validation,balanced"])
    plain = Variant("plain", ())
    adjusted = Variant("adjusted", (("selection.prior", "as_validation"),))
    assert len(plan_runs(tmp_path / "classwise.toml", [plain, adjusted], 1, tmp_path / "out", ()).runs) == 2


def test_warnings_are_kept_once_a_variant(tmp_path: Path) -> None:
    """Two seeds share them; a variant without any has none."""
    vary = ["loss.name=cross_entropy,balanced_softmax"]
    plan = plan_of(tmp_path, vary, (("data.sampling", "balanced"),))
    assert len(plan.runs) == 4
    ((name, warning),) = plan.warnings
    assert name == "loss.name=balanced_softmax"
    assert "each correct for the class frequencies" in warning


@pytest.mark.parametrize("written", [None, True, False])
@pytest.mark.parametrize("override", [None, True, False])
def test_baselines_are_off_unless_asked_for(
    tmp_path: Path, written: bool | None, override: bool | None
) -> None:
    """The table has no column for them; what the file or an override says is kept, the override before the file."""
    more = "" if written is None else f"[report]\nbaselines = {str(written).lower()}\n"
    overrides = () if override is None else (("report.baselines", str(override).lower()),)
    plan = plan_of(tmp_path, ["training.epochs=1,2"], overrides, more)
    wanted = override if override is not None else bool(written)
    assert [run.config.report.baselines for run in plan.runs] == [wanted] * 4


def as_before_data_test(plan: Plan) -> None:
    """Write the compare.json of a version without data.test, and the folders of its runs."""
    folder = plan.folder
    file = read_plan_file(folder)
    file.add(plan.runs, plan.scoring)
    for run in plan.runs:
        run.folder.parent.mkdir(parents=True, exist_ok=True)
    file.write()
    content = json.loads(file.path.read_text())
    for variant in content["variants"].values():
        del variant["config"]["data.test"]
        variant["config"]["data.valid"] = 0.2
    file.path.write_text(json.dumps(content))


def test_a_comparison_of_an_earlier_version_is_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runs were scored on the rows that chose their epochs: the message says so, and what to do."""
    monkeypatch.chdir(tmp_path)
    plan = plan_of(tmp_path, ["training.epochs=1,2"], (("selection.first_epoch", "1"),))
    as_before_data_test(plan)
    says = r"data.test: \(not set\) before, 0.2 now. These runs were scored .* Name another --out"
    with pytest.raises(ConfigError, match=says):
        read_plan_file(plan.folder).add(plan.runs, plan.scoring)


def test_a_comparison_of_an_earlier_version_at_a_fixed_epoch_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its validation rows chose nothing, and a key that is not set is as one that did not exist."""
    monkeypatch.chdir(tmp_path)
    plan = plan_of(tmp_path, ["loss.name=cross_entropy,focal"], (("training.epochs", "1"),))
    as_before_data_test(plan)
    read_plan_file(plan.folder).add(plan.runs, plan.scoring)

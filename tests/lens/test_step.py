"""`classwise step`: what the page and the terminal say of an update, for every kind of recipe; what it refuses."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from classwise.compose import state
from classwise.lens.command import Step, step
from classwise.lens.page import render
from classwise.lens.sentences import short
from classwise.lens.text import can_encode, text_of
from classwise.training import loop
from tests.helpers.scenes import (
    MANY,
    PEOPLE,
    PLAIN,
    command,
    generators_untouched,
    many_table,
    people_table,
    plain_table,
    untouched,
    write_config,
)

RANKING = {
    "match": {"column": "relevance", "type": "ranking", "query": "query"},
    "tags": {"column": "tags", "type": "multilabel"},
}
OWN_LOSSES = """
import torch
from torch.nn.functional import cross_entropy


class Doubled(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, outputs, targets):
        return self.factor * cross_entropy(outputs, targets, reduction="none")


def doubled(outputs, targets, factor):
    return factor * cross_entropy(outputs, targets, reduction="none")
"""
FIXED = {"training__freeze_epochs": None, "training__target_weights": None}


def look(path: Path, **options: Any) -> Step:
    """The command's function, with the page beside the config."""
    return step(path, out=path.parent / "step.html", force=True, quiet=True, **options)


def people(folder: Path, **changes: Any) -> Path:
    people_table(folder, 14)
    return write_config(folder, PEOPLE, **changes)


def plain(folder: Path, rows: int = 20, **changes: Any) -> Path:
    plain_table(folder, rows)
    return write_config(folder, PLAIN, **changes)


def many(folder: Path, **changes: Any) -> Path:
    many_table(folder)
    return write_config(folder, MANY, **changes)


RECIPES: dict[str, tuple[Any, Mapping[str, Any], int]] = {
    "four types": (many, FIXED, 1),
    "learned weights between targets": (many, {"training__freeze_epochs": None}, 2),
    "features of a frozen backbone": (many, {}, 1),
    "the epoch after": (many, {}, 3),
    "ranking": (
        many,
        {
            **FIXED,
            "targets": RANKING,
            "loss": None,
            "selection__metric": "match.ndcg",
            "training__accumulate": 1,
        },
        2,
    ),
    "mixup": (many, {**FIXED, "data__mixup": 0.4, "targets__size__loss__name": "mse"}, 2),
    "cutmix": (plain, {"data__cutmix": 1.0}, 1),
    "soft F1": (plain, {"loss": {"name": "soft_f1"}}, 1),
    "a sum of losses": (
        plain,
        {"loss": {"name": "sum", "terms": [{"name": "focal", "weight": 2.0}, {"name": "gce"}]}},
        1,
    ),
    "LDAM, deferred weights": (
        plain,
        {"loss": {"name": "ldam", "class_weights": "inverse", "weights_from_epoch": 2}},
        3,
    ),
    "small chunks": (plain, {"training__micro_batch": 3, "training__accumulate": 2}, 1),
    "average, bf16": (plain, {"training__ema": 0.9, "training__precision": "bf16"}, 3),
    "fp16": (plain, {"training__precision": "fp16", "optimizer": {"name": "adamw"}}, 2),
    "group norm": (plain, {"model__backbone": "small_cnn_gn"}, 1),
    "gray": (plain, {"model__channels": 1}, 1),
    "frozen backbone": (plain, {"optimizer": {"backbone_lr_factor": 0.0}}, 1),
    "plateau": (plain, {"schedule": {"name": "plateau", "patience": 0}}, 3),
    "another optimizer": (plain, {"optimizer": {"name": "rmsprop", "lr": 1e-3}}, 2),
    "all rows": (plain, {"data__valid": 0}, 3),
}


@pytest.mark.parametrize(("make", "changes", "update"), RECIPES.values(), ids=RECIPES)
def test_every_recipe(make: Any, changes: Mapping[str, Any], update: int, tmp_path: Path) -> None:
    """The parts add up to the loss of the update, the page is whole and small and loads nothing, and the terminal has
    no line beyond its width."""
    found = look(make(tmp_path, **changes), update=update)
    view, recording = found.view, found.recording
    reduction = view.reduction
    learned = reduction.heads[0].learned is not None

    # The loss of the update: that of its chunks, of its heads, and of its rows.
    assert sum(chunk.loss for chunk in reduction.chunks) == pytest.approx(recording.total, rel=2e-3)
    if not learned:
        total = sum(head.weight * head.value for head in reduction.heads)
        assert total == pytest.approx(recording.total, rel=2e-3)
    for head in reduction.heads:
        if head.terms:
            rows = sum(head.row_loss(row) or 0.0 for row in range(len(head.terms[0].rows)))
            assert rows == pytest.approx(head.value, rel=1e-4)

    # Every parameter: the squares of the norms add up to that of the whole.
    shares = [p.share for part in view.parts for p in part.parameters]
    assert sum(shares) == pytest.approx(1, rel=1e-6)
    names = [p.name for part in view.parts for p in part.parameters]
    assert (
        len(names)
        == len(set(names))
        == len(recording.gradients) + sum(p.norm is None for part in view.parts for p in part.parameters)
    )

    page = found.path.read_text()
    assert len(page) < 5e6
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page
    for number in (recording.total, view.loss_after, recording.norm):
        assert short(number) in page
    for columns in (80, 60):
        assert max(len(line) for line in text_of(view, columns).splitlines()) <= columns


def test_the_graph_leads_to_every_trained_parameter(tmp_path: Path) -> None:
    """Each leaf once, in the module of its name, and no other; the shapes are those of the batch."""
    found = look(people(tmp_path))
    graph = found.recording.graph
    assert graph is not None
    leaves = [leaf for op in graph.all_ops() for leaf in op.leaves]
    assert sorted(leaf.name for leaf in leaves) == sorted(found.recording.gradients)
    shapes = {name: tuple(value.shape) for name, value in found.recording.gradients.items()}
    assert all(leaf.shape == shapes[leaf.name] for leaf in leaves)

    def blocks(block: Any) -> Any:
        yield block
        for child in block.children:
            yield from blocks(child)

    by_name = {block.name: block for block in blocks(graph)}
    norm = by_name["backbone.stage2.norm"]
    assert [leaf.name for op in norm.ops for leaf in op.leaves] == [
        "backbone.stage2.norm.weight",
        "backbone.stage2.norm.bias",
    ]
    assert by_name["backbone"].taken == (8, 3, 20, 16)
    assert by_name["heads.2"].given == (8, 3)
    assert {"loss of mask", "loss of gender", "loss of age"} <= set(by_name)
    assert "NllLossBackward0" in [op.name for op in by_name["loss of gender"].ops]


def test_a_frozen_backbone_is_left_out_and_says_why(tmp_path: Path) -> None:
    """The chain ends at the heads; the page names the key that froze the rest."""
    found = look(plain(tmp_path, optimizer={"backbone_lr_factor": 0.0}))
    frozen = [p for part in found.view.parts for p in part.parameters if p.frozen]
    assert frozen
    assert all(p.name.startswith("backbone.") and p.norm is None for p in frozen)
    assert set(found.recording.gradients) == {"heads.0.weight", "heads.0.bias"}
    page = found.path.read_text()
    assert page.count("frozen: optimizer.backbone_lr_factor = 0 sets requires_grad=False") == len(frozen)
    assert f"{len(frozen)} parameters are frozen" in page


def test_frozen_first_layers_are_left_out_and_say_why(tmp_path: Path) -> None:
    """The chain ends at the first layer that is trained."""
    found = look(plain(tmp_path, optimizer={"layer_decay": 0.5, "frozen_below": 0.2}))
    frozen = {p.name for part in found.view.parts for p in part.parameters if p.frozen}
    named = {p.name for part in found.view.parts for p in part.parameters}
    assert frozen == {name for name in named if name.startswith(("backbone.stem.", "backbone.stage1."))}
    assert set(found.recording.gradients) == named - frozen
    page = found.path.read_text()
    assert page.count("layer_decay leaves less than optimizer.frozen_below") == len(frozen)


def test_counts_and_signs_are_written_as_in_print(tmp_path: Path) -> None:
    """One thread, minus signs rather than hyphens, and the heads' rate named as such where the backbone has another."""
    found = look(plain(tmp_path, training__threads=1, optimizer__backbone_lr_factor=0.5))
    page = found.path.read_text()
    assert "on cpu, 1 thread<" in page
    assert re.search(r"<small>−\d\.\d{3}</small>", page)
    assert not re.search(r"<small>-\d", page)
    assert "learning rate of the heads " in text_of(found.view, 100)


@pytest.mark.parametrize("name", ["Doubled", "doubled"])
def test_a_loss_of_the_users_own(name: str, tmp_path: Path) -> None:
    """A class or a function with an argument runs, as in `train`, and is shown under its name."""
    (tmp_path / "my_losses.py").write_text(OWN_LOSSES)
    found = look(plain(tmp_path, loss={"name": f"my_losses.py:{name}", "factor": 2.0}))
    assert f"<small>{name}</small>" in found.path.read_text()


def test_clipping(tmp_path: Path) -> None:
    """The norm before, the limit, and the factor; the chosen weight has both gradients."""
    path = plain(tmp_path, training__clip_norm=0.01)
    found = look(path)
    assert found.recording.norm > 0.01
    assert found.recording.clipped_norm == pytest.approx(0.01, rel=1e-3)
    weight = found.recording.weight
    assert weight is not None
    assert weight.gradient / weight.raw_gradient == pytest.approx(found.view.clip_factor, rel=1e-5)
    assert "is above training.clip_norm = 0.01" in found.path.read_text()
    write_config(tmp_path, PLAIN, training__clip_norm=1e6)
    assert "so clipping changes nothing" in look(path).path.read_text()
    write_config(tmp_path, PLAIN)
    assert "training.clip_norm is not set" in look(path).path.read_text()


def test_micro_batches_give_the_gradient_of_one_batch(tmp_path: Path) -> None:
    """To rounding, while the mean of means is far off; batch norm is held still for it, and what it does else is
    said."""
    path = plain(tmp_path, model__backbone="small_cnn_gn")
    found = look(path).view.comparisons.accumulation
    assert found is not None
    assert found.whole is not None
    assert found.sizes == (5, 3)
    assert found.whole.two_difference < 1e-5 * found.whole.one
    assert found.whole.means_difference > 0.05 * found.whole.one
    assert (found.norms, found.norm_effect) == (0, None)

    write_config(tmp_path, PLAIN)
    found = look(path).view.comparisons.accumulation
    assert found is not None
    assert found.whole is not None
    assert found.whole.two_difference < 1e-5 * found.whole.one
    assert found.whole.means_difference > 0.05 * found.whole.one
    assert found.norms == 4
    assert found.norm_effect is not None
    assert found.norm_effect > 0.01
    assert f"differ by {found.norm_effect:.1%} of their size" in (tmp_path / "step.html").read_text()


def test_the_gradient_of_one_batch_is_the_recorded_one(tmp_path: Path) -> None:
    """What is compared with is this update's own gradient, where no layer depends on the batch and all rows are in
    it."""
    found = look(plain(tmp_path, model__backbone="small_cnn_gn")).view
    accumulation = found.comparisons.accumulation
    assert accumulation is not None
    assert accumulation.whole is not None
    assert accumulation.whole.one == pytest.approx(found.recording.norm, rel=1e-5)


def test_train_and_eval(tmp_path: Path) -> None:
    """They differ by dropout and batch norm; without either the outputs are equal."""
    path = people(tmp_path)
    modes = look(path).view.comparisons.modes
    assert modes is not None
    assert (modes.dropout, modes.norms) == (("dropout",), 4)
    assert all(value > 1e-3 for value in modes.differences.values())
    assert modes.statistic is not None
    assert modes.statistic[0] == "backbone.stem.norm"

    write_config(tmp_path, PEOPLE, model__backbone="small_cnn_gn", model__dropout=None)
    modes = look(path).view.comparisons.modes
    assert modes is not None
    assert (modes.dropout, modes.norms, modes.statistic) == ((), 0, None)
    assert modes.eval_loss == pytest.approx(modes.train_loss, rel=1e-5)


def test_no_grad_keeps_nothing(tmp_path: Path) -> None:
    """No nodes and no memory, where a pass with gradients has both."""
    found = look(plain(tmp_path)).view.comparisons.grad_mode
    assert found is not None
    assert (found.nodes_without, found.kept_without) == (0, 0)
    assert found.nodes > 10
    assert found.kept > 8 * 24 * 16 * 16 * 4  # the first maps alone
    assert found.equal


def test_the_rows_that_were_asked_for(tmp_path: Path) -> None:
    """They are the update, in their order, and page and terminal say that `train` has others."""
    path = plain(tmp_path)
    own = look(path)
    assert not own.view.is_chosen
    train = [row.id for row in own.view.rows]
    ids = [train[5], train[1], train[3]]
    result = command("step", path, "--rows", ",".join(ids), "--out", tmp_path / "rows.html").ok()
    page = (tmp_path / "rows.html").read_text()
    assert re.findall(r'alt="([^"]+)"', page) == ids
    assert "not the one that `train` makes here" in page
    assert "the rows are those of --rows" in result.out
    assert "not the one that `train` makes here" not in own.path.read_text()


def test_the_command_writes_nothing_else(tmp_path: Path) -> None:
    """One page, no run directory, and torch's random numbers as they were; a page that exists is kept."""
    path = plain(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    with generators_untouched():
        result = command("step", path, "--out", out / "a.html", "--training.epochs", "1").ok()
    assert result.path == out / "a.html"
    assert [file.name for file in out.iterdir()] == ["a.html"]
    with untouched(tmp_path):
        again = command("step", path, "--out", out / "a.html")
    assert (again.code, "exists already" in again.err) == (1, True)


def test_the_same_update_gives_the_same_page(tmp_path: Path) -> None:
    """To the byte: nothing in it depends on the time."""
    path = people(tmp_path)
    first = render(look(path, update=2).view)
    assert first == render(look(path, update=2).view)


def test_hostile_names(tmp_path: Path) -> None:
    """Ids and labels are text on the page, whatever they contain."""
    plain_table(tmp_path)
    table = pl.read_csv(tmp_path / "samples.csv")
    evil = '<script>alert("1")</script>'
    ids = [f"{evil}{row}" for row in range(len(table))]
    labels = pl.when(pl.col("label") == "a").then(pl.lit(evil)).otherwise(pl.col("label")).alias("label")
    table.with_columns(pl.Series("id", ids), labels).write_csv(tmp_path / "samples.csv")
    page = look(write_config(tmp_path, PLAIN, data__id="id")).path.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_chosen_weight(tmp_path: Path) -> None:
    """By its name and place, or the largest gradient of a parameter."""
    path = plain(tmp_path)
    found = look(path, weight="heads.0.weight[1, 7]").recording
    assert found.weight is not None
    assert found.weight.new == found.after["heads.0.weight"][1, 7].item()
    assert found.weight.old == found.before["heads.0.weight"][1, 7].item()
    found = look(path, weight="backbone.stem.norm.bias").recording
    assert found.weight is not None
    largest = int(found.gradients["backbone.stem.norm.bias"].abs().argmax())
    assert found.weight.title == f"backbone.stem.norm.bias[{largest}]"


def test_an_ascii_terminal(tmp_path: Path) -> None:
    """Formulas have no sign that it lacks."""
    view = look(plain(tmp_path, optimizer={"name": "adamp", "weight_decay": 0.1})).view
    assert text_of(view, 80, plain=True).isascii()
    assert not text_of(view, 80).isascii()
    assert (can_encode("ascii"), can_encode("utf-8"), can_encode("no such")) == (False, True, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--update", "0"), "--update: found 0, allowed: 1 or more"),
        (("--update", "99"), "--update: found 99, but the run has 4 updates; allowed: 1 to 4"),
        (("--rows", "nope"), "--rows: there is no row 'nope'"),
        (("--rows", ","), "--rows: found no id"),
        (("--rows", "a,b,a"), "--rows: found 'a' twice"),
        (("--rows", ",".join(map(str, range(9)))), "--rows: found 9 rows; allowed: up to 8"),
        (("--weight", "heads.0.weigth[1,2]"), "did you mean 'heads.0.weight'"),
        (("--weight", "heads.0.weight[1]"), "has the shape [2, 864]; allowed: 2 numbers"),
        (("--weight", "heads.0.weight[2,0]"), "has the shape [2, 864]; allowed: 2 numbers"),
        (("--weight", "[1]"), "--weight: found '[1]'; allowed"),
        (("--weight", "backbone.stem.conv.weight", "--optimizer.backbone_lr_factor", "0"), "is frozen"),
        (("--training.plan", "probe"), 'training.plan: found "probe"'),
        (("--training.epoch", "1"), "training.epoch"),
        (("--out", "no/such/step.html"), "there is no folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_refused(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the option, what was found and what is allowed; no page is left."""
    path = plain(tmp_path)
    monkeypatch.chdir(tmp_path)
    result = command("step", path, *arguments)
    assert result.code == 1
    assert message in result.err
    assert not (tmp_path / "step.html").exists()


def test_a_validation_row_is_refused(tmp_path: Path) -> None:
    """Nothing is ever trained on it."""
    path = plain(tmp_path)
    command("train", path, "--run", tmp_path / "run").ok()
    split = pl.read_csv(tmp_path / "run" / "split.csv")
    row = split.filter(pl.col("split") == "valid")["id"][0]
    result = command("step", path, "--rows", row, "--out", tmp_path / "a.html")
    assert f"--rows: {row!r} is a validation row" in result.err


def test_a_run_that_stops_before(tmp_path: Path) -> None:
    """Early stopping ends it as it ends `train`."""
    changes = {"selection__patience": 1, "training__epochs": 30, "optimizer": {"name": "sgd", "lr": 1e-30}}
    path = plain(tmp_path, model__backbone="small_cnn_gn", **changes)
    result = command("step", path, "--update", 50, "--out", tmp_path / "a.html")
    assert (
        "--update: found 50, but the run ends after update 4 (early stopped); allowed: 1 to 4" in result.err
    )


def test_an_image_alone(tmp_path: Path) -> None:
    """Outputs of one row, without batch norm; nothing can be divided."""
    path = plain(tmp_path, model__backbone="small_cnn_gn")
    row = look(path).view.rows[0].id
    found = look(path, rows=row)
    assert found.view.row_count == 1
    assert "There is nothing to divide" in found.path.read_text()
    assert torch.isfinite(torch.tensor(found.recording.total))


def test_an_update_that_did_not_fit_is_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out in it, the loop begins it again in smaller chunks, and these are shown."""
    path = plain(tmp_path, model__backbone="small_cnn_gn")
    expected = look(path).recording
    calls: list[int] = []
    seed = loop.seed_dropout

    def full_once(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("not enough")
        seed(*arguments)

    monkeypatch.setattr(loop, "seed_dropout", full_once)
    found = look(path)
    assert [len(chunk.rows) for chunk in found.recording.chunks] == [4, 4]
    assert found.recording.rows == expected.rows
    assert found.recording.total == pytest.approx(expected.total, rel=1e-6)
    assert "computed in 2 chunks" in found.path.read_text()


def test_an_image_alone_and_batch_norm(tmp_path: Path) -> None:
    """Where its maps have one cell, batch norm has nothing to normalize by: said in words of the option."""
    path = plain(tmp_path, model={"backbone": "test_resnet", "image_size": [16, 16]})
    row = look(path).view.rows[0].id
    result = command("step", path, "--rows", row, "--out", tmp_path / "a.html")
    assert result.code == 1
    assert "--rows: found 1 row, which leaves a batch of a single image, and batch norm" in result.err


def test_warnings_of_the_data_are_shown(tmp_path: Path) -> None:
    """As `train` shows them: here of two rows with one image."""
    rows = plain_table(tmp_path, 20)
    (tmp_path / rows[0][0]).write_bytes((tmp_path / rows[2][0]).read_bytes())
    result = command("step", write_config(tmp_path, PLAIN), "--out", tmp_path / "a.html").ok()
    assert "warning: 2 rows hold an image that another row holds too" in result.err


def test_a_compiled_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets no hooks, which would make another one of it: the chain is shown, but not by module."""
    hooked: list[bool] = []

    def stand_in(model: Any, sizes: frozenset[int]) -> Any:
        def compute(images: torch.Tensor) -> Any:
            hooked.append(any(module._forward_hooks for module in model.modules()))
            return model(images)

        return compute

    monkeypatch.setattr(state, "compiled", stand_in)
    found = look(plain(tmp_path, training__compile=True))
    assert hooked
    assert not any(hooked)
    graph = found.recording.graph
    assert graph is not None
    assert graph.children == []
    leaves = {leaf.name for op in graph.all_ops() for leaf in op.leaves}
    assert leaves == set(found.recording.gradients)
    assert "its modules cannot be told apart" in found.path.read_text()


def test_many_classes(tmp_path: Path) -> None:
    """Of more than there are columns for, the most probable ones are shown, most probable first."""
    plain_table(tmp_path, 40)
    table = pl.read_csv(tmp_path / "samples.csv")
    labels = [f"class {row % 20}" for row in range(len(table))]
    table.with_columns(pl.Series("label", labels)).write_csv(tmp_path / "samples.csv")
    view = look(write_config(tmp_path, PLAIN)).view
    assert view.outputs[0].columns == ("1.", "2.", "3.", "4.", "5.")
    bars = [cell.bar or 0.0 for cell in view.outputs[0].rows[0]]
    assert bars == sorted(bars, reverse=True)
    logits = view.recording.chunks[0].outputs["label"][0]
    names = view.run.splits.label_lists["label"]
    assert view.outputs[0].rows[0][0].text == names[int(logits.argmax())]

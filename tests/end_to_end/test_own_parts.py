"""Parts of the user's own, as the guide has them, through every command; and who may run them."""

import hashlib
import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import classwise
from classwise.errors import TrustError
from tests.end_to_end.test_interrupt import stop_after
from tests.helpers.own_parts import guide_files
from tests.helpers.refusals import refused, says
from tests.helpers.same_end import assert_same_end
from tests.helpers.scenes import (
    FORKS,
    PLAIN,
    Result,
    command,
    plain_rows,
    plain_table,
    write_config,
    write_csv,
)

FIVE: dict[str, Any] = {
    **PLAIN,
    "data": {**PLAIN["data"], "augment": {"preset": "my_augment.py:augment", "flip": 0.5}},
    "targets": {"label": {"column": "label", "metrics": ["my_metrics.py:cost", "my_metrics.py:Hits"]}},
    "model": {**PLAIN["model"], "backbone": "my_model.py:Net"},
    "loss": {"name": "my_losses.py:Poly", "epsilon": 2.0},
    "optimizer": {"name": "my_optim.py:Sign", "options": {"beta": 0.8}},
    "selection": {"metric": "cost"},
    "training": {**PLAIN["training"], "epochs": 3, "batch_size": 5, "accumulate": 2},
    "report": {"resamples": 20},
}
FILES = guide_files()
COPIED = {"my_augment.py", "my_losses.py", "my_metrics.py", "my_model.py", "my_optim.py"}


def files_of_the_guide(folder: Path, **changes: Any) -> Path:
    """Sixteen rows, the guide's files, and a config that names all of them."""
    plain_table(folder, 16)
    for name, code in FILES.items():
        (folder / name).write_text(code, encoding="utf-8")
    return write_config(folder, FIVE, **changes)


def trust_of(run: Path) -> str:
    """What --trust has to name, as `sha256sum` would print it."""
    files = sorted((run / "code").glob("*.py"))
    return ",".join(hashlib.sha256(path.read_bytes()).hexdigest()[:8] for path in files)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with parts of all kinds in `run`."""
    folder = tmp_path_factory.mktemp("own")
    command("train", files_of_the_guide(folder), "--run", folder / "run").ok()
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """A copy of it in another place, where nothing else is."""
    return Path(shutil.copytree(folder / "run", tmp_path / "moved"))


def test_the_guide_shows_what_it_names() -> None:
    """The config of the page names the files of the page, each of which has its ten lines or few more."""
    assert set(FILES) == COPIED
    for name, code in FILES.items():
        assert len([line for line in code.splitlines() if line.strip()]) <= 20, name


def test_the_files_are_copied_with_their_digests(folder: Path) -> None:
    """And the run's config names the copies."""
    code = folder / "run/code"
    listed = json.loads((code / "manifest.json").read_text())["files"]
    assert set(listed) == COPIED
    for name, entry in listed.items():
        assert (code / name).read_bytes() == (folder / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    config = tomllib.loads((folder / "run/config.toml").read_text())
    assert config["loss"] == {"name": "code/my_losses.py:Poly", "epsilon": 2.0}
    assert config["model"]["backbone"] == "code/my_model.py:Net"
    assert config["optimizer"]["name"] == "code/my_optim.py:Sign"
    assert config["data"]["augment"]["preset"] == "code/my_augment.py:augment"
    assert config["targets"]["label"]["metrics"] == ["code/my_metrics.py:cost", "code/my_metrics.py:Hits"]
    # Nothing in a checkpoint leads to where the run was trained.
    state = (folder / "run/checkpoints/best/state.json").read_text()
    assert str(folder / "my_model.py") not in state
    assert str(folder / "run") not in state


def test_the_users_metrics_are_scored_and_select(folder: Path) -> None:
    """In metrics.json, the history, the terminal and the report."""
    metrics = json.loads((folder / "run/metrics.json").read_text())
    own = metrics["targets"]["label"]["own"]
    assert set(own) == {"cost", "Hits"}
    assert own["Hits"] == pytest.approx(metrics["targets"]["label"]["accuracy"])
    assert metrics["metric"] == "cost"
    assert metrics["value"] == own["cost"] <= 0
    history = [json.loads(line) for line in (folder / "run/history.jsonl").read_text().splitlines()]
    assert {"cost", "Hits"} <= set(history[0]["valid"])
    assert metrics["value"] == max(row["valid"]["cost"] for row in history[2:])
    assert "Hits" in (folder / "run/report.html").read_text()
    shown = command("evaluate", folder / "run", "--trust", trust_of(folder / "run")).ok().out
    assert f"cost {own['cost']:.4f} on 4 rows" in shown
    assert f"Hits {own['Hits']:.4f}" in shown


def test_rows_with_labels_that_the_model_has_never_seen_are_left_out_of_them(
    folder: Path, run: Path, tmp_path: Path
) -> None:
    """The user's table of costs has no line for such a label; our scores count the row as a mistake."""
    rows = [*plain_rows(6), ["images/06.png", "never seen"]]
    table = write_csv(tmp_path / "more.csv", ("path", "label"), rows)
    opened = classwise.Run.open(run, trust=trust_of(run))
    found = opened.evaluate(table, folder)["targets"]["label"]
    six = write_csv(tmp_path / "six.csv", ("path", "label"), rows[:6])
    without = opened.evaluate(six, folder)["targets"]["label"]
    assert found["own"] == without["own"]
    assert found["samples"] == without["samples"] + 1
    assert found["own"]["Hits"] == pytest.approx(without["accuracy"])


def test_predict_needs_nothing_but_the_run(folder: Path, run: Path) -> None:
    """In another place, without the user's files: the predictions are those of the end of training."""
    table = folder / "samples.csv"
    out = run.parent / "predictions.csv"
    command("predict", run, table, "--images", folder, "--trust", trust_of(run), "--out", out).ok()
    found = {row["id"]: row for row in pl.read_csv(out).drop("label_true", strict=False).to_dicts()}
    for row in pl.read_csv(run / "predictions.csv").drop("label_true").to_dicts():
        assert found[row["id"]] == pytest.approx(row)


@pytest.mark.parametrize("name", ["resume", "predict", "evaluate", "submit", "export", "report", "train"])
def test_every_command_refuses_code_that_is_not_trusted(folder: Path, run: Path, name: str) -> None:
    """With what to read, and the option that would trust it; nothing is written. `train` of the run's config, too."""
    out = run.parent / "out.csv"
    more: dict[str, tuple[object, ...]] = {
        "predict": (folder / "images", "--out", out),
        "submit": (folder / "samples.csv", "--images", folder, "--out", out),
        "export": ("--out", run.parent / "out.onnx"),
    }
    given = run / "config.toml" if name == "train" else run
    message = refused(run.parent, name, given, *more.get(name, ()))
    says(message, "has code of its own", "code/my_losses.py", f"add --trust {trust_of(run)}")


@pytest.mark.parametrize("name", ["evaluate", "report", "resume"])
def test_a_trusted_run_can_be_used(run: Path, name: str) -> None:
    """By at least eight characters of each digest; a finished run is resumed by saying so."""
    command(name, run, "--trust", trust_of(run)).ok()


def test_in_python_trust_is_an_argument(run: Path) -> None:
    """Of `Run.open`; what has been opened once is no reason to open it again without."""
    opened = classwise.Run.open(run, trust=trust_of(run).split(","))
    assert (
        opened.predict(run.parent.parent, ids=None).height if False else opened.evaluate()["metric"] == "cost"
    )
    with pytest.raises(TrustError, match="has code of its own"):
        classwise.Run.open(run)


@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_copy_that_was_edited_is_refused_by_name(run: Path, is_trusted: bool) -> None:
    """Whatever is trusted: the model was not trained with it."""
    with (run / "code/my_model.py").open("a") as file:
        file.write("# a comment\n")
    trust = ("--trust", trust_of(run)) if is_trusted else ()
    says(refused(run.parent, "evaluate", run, *trust), "code/my_model.py has changed since the run began")


def test_resume_also_compares_with_what_the_checkpoint_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was edited together with the manifest can be trusted, and would still be another run."""
    stop_after(1, files_of_the_guide(tmp_path), tmp_path / "run", monkeypatch)
    edited, manifest = tmp_path / "run/code/my_losses.py", tmp_path / "run/code/manifest.json"
    before = hashlib.sha256(edited.read_bytes()).hexdigest()
    edited.write_text(edited.read_text().replace("loss +", "loss -"))
    after = hashlib.sha256(edited.read_bytes()).hexdigest()
    manifest.write_text(manifest.read_text().replace(before, after))
    message = refused(tmp_path, "resume", tmp_path / "run", "--trust", trust_of(tmp_path / "run"))
    says(message, f"the code of loss.name had the digest {before[:8]} and has {after[:8]}")


def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All five kinds, resumed in the middle of an epoch, in a run directory that was moved."""
    stop_after(3, folder / "classwise.toml", tmp_path / "run", monkeypatch)
    moved = Path(shutil.move(tmp_path / "run", tmp_path / "moved"))
    command("resume", moved, "--trust", trust_of(moved)).ok()
    assert_same_end(folder / "run", moved)


def test_the_message_of_a_stop_has_the_option(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has trained it may go on by copying one line."""
    said: list[str] = []

    def noted(*arguments: object) -> Result:
        said.append((result := command(*arguments)).err)
        return result

    run = tmp_path / "run"
    monkeypatch.setattr("tests.end_to_end.test_interrupt.command", noted)
    stop_after(1, folder / "classwise.toml", run, monkeypatch)
    option = f"--trust {trust_of(run)}"
    assert said[0].splitlines()[-1].endswith(f"go on with: classwise resume {run} {option}")


@FORKS
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_worker_processes_make_the_same_images(folder: Path, tmp_path: Path, start: str) -> None:
    """However they are started: the same weights to the bit."""
    options = ("--data.workers", "2", "--data.start_method", start)
    command("train", folder / "classwise.toml", "--run", tmp_path / "run", *options).ok()
    one, other = (path / "checkpoints/last/model.safetensors" for path in (folder / "run", tmp_path / "run"))
    assert one.read_bytes() == other.read_bytes()


def test_the_runs_own_config_trains_the_same_run_again(folder: Path, run: Path) -> None:
    """With trust, since its code may be anyone's."""
    again = run.parent / "again"
    command("train", run / "config.toml", "--run", again, "--trust", trust_of(run)).ok()
    assert_same_end(folder / "run", again)


def test_a_run_starts_from_the_weights_of_another(folder: Path, tmp_path: Path) -> None:
    """Of a backbone with the same name; the code of the other run is not run, and needs no trust."""
    config = files_of_the_guide(tmp_path, model__weights=str(folder / "run"), training__epochs=1)
    said = command("train", config, "--run", tmp_path / "run").ok().err
    assert "the backbone goes on from the best weights of" in said
    message = refused(tmp_path, "train", config, "--model.backbone", "small_cnn")
    says(message, "was trained with the backbone 'my_model.py:Net'", "model.backbone is 'small_cnn'")


def test_a_run_without_code_needs_no_trust(tmp_path: Path) -> None:
    """And has no folder for it; a digest that has no effect is a mistake."""
    plain_table(tmp_path)
    command("train", write_config(tmp_path, training__epochs=1), "--run", tmp_path / "run").ok()
    assert not (tmp_path / "run/code").exists()
    assert "code" not in json.loads((tmp_path / "run/checkpoints/best/state.json").read_text())["metadata"]
    says(refused(tmp_path, "evaluate", tmp_path / "run", "--trust", "0123abcd"), "has no code of its own")


def test_code_that_no_manifest_lists_does_not_run(run: Path) -> None:
    """A run directory with an edited config, or without its manifest, cannot bring in another file."""
    evil = run / "code/evil.py"
    evil.write_text(f"open({str(run.parent / 'ran')!r}, 'w')\ncost = print\n")
    config = run / "config.toml"
    config.write_text(config.read_text().replace("code/my_metrics.py:cost", "code/evil.py:cost"))
    says(refused(run.parent, "evaluate", run, "--trust", trust_of(run)), "is not the digest of a file")
    evil_free = ",".join(
        d for d in trust_of(run).split(",") if d != hashlib.sha256(evil.read_bytes()).hexdigest()[:8]
    )
    says(refused(run.parent, "evaluate", run, "--trust", evil_free), "evil.py is code that was not trusted")
    (run / "code/manifest.json").unlink()
    says(refused(run.parent, "evaluate", run), "is code that was not trusted")
    assert not (run.parent / "ran").exists()


WRONG = {
    "loss.name": ("def f(outputs, targets):\n    return outputs.sum()\n", "returned one number for 7 rows"),
    "model.backbone": (
        "import torch\ndef f():\n    return torch.nn.Conv2d(3, 4, 3)\n",
        "a vector of features",
    ),
    "data.augment": (
        "import numpy\ndef f(image, rng):\n    return image + numpy.random.randint(9, dtype='uint8')\n",
        "chance from `rng` alone",
    ),
    "optimizer.name": ("def f(params, lr): pass\n", "is no subclass of torch.optim.Optimizer"),
    "targets.label.metrics": (
        "def f(predictions, targets):\n    return predictions[0, 0]\n",
        "a value of the whole set",
    ),
}


@pytest.mark.parametrize("key", WRONG)
def test_train_refuses_a_wrong_part_before_anything_is_written(tmp_path: Path, key: str) -> None:
    """With the key, and what to write instead."""
    code, text = WRONG[key]
    plain_table(tmp_path)
    (tmp_path / "wrong.py").write_text(code)
    value = '["wrong.py:f"]' if key.endswith("metrics") else "wrong.py:f"
    config = write_config(tmp_path, data__cache="off")
    message = refused(tmp_path, "train", config, "--run", tmp_path / "run", f"--{key}", value)
    says(message, key, "wrong.py:f", text)


def test_a_part_cannot_import_files_beside_it(tmp_path: Path) -> None:
    """They would not be in the run."""
    plain_table(tmp_path)
    (tmp_path / "helpers_of_mine.py").write_text("x = 1\n")
    (tmp_path / "wrong.py").write_text("import torch\nfrom helpers_of_mine import x\ndef f(o, t): return o\n")
    message = refused(tmp_path, "train", write_config(tmp_path), "--loss.name", "wrong.py:f")
    says(message, "wrong.py (line 2) imports helpers_of_mine, which is a file beside it", "is one file")


def test_compare_trains_with_it_and_notices_a_change(tmp_path: Path) -> None:
    """Each run has its copy; the same command with another file is another comparison."""
    config = files_of_the_guide(tmp_path, training__epochs=1, data__test=0.25, selection=None)
    order = (
        "compare",
        config,
        "--vary",
        "loss.name=cross_entropy,my_losses.py:Poly",
        "--seeds",
        1,
        "--out",
        tmp_path / "c",
    )
    command(*order).ok()
    assert len(list((tmp_path / "c").rglob("code/my_losses.py"))) == 1
    assert len(list((tmp_path / "c").rglob("code/my_model.py"))) == 2
    (tmp_path / "my_model.py").write_text(FILES["my_model.py"] + "# changed\n")
    found = command(*order)
    assert found.code == 1
    assert "model.backbone (content):" in found.err


def test_bench_times_it(folder: Path) -> None:
    """The same code runs."""
    assert command("bench", folder / "classwise.toml", "--data.cache", "off").ok().out

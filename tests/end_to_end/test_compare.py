"""Comparisons from the command to the table: what is trained, what is kept, and what a stop leaves behind."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from classwise.compare import compare
from classwise.compare.variants import Variant, grid
from classwise.compose import autotune
from classwise.errors import ConfigError, Interrupted
from classwise.run import api as run
from classwise.run import parallel
from classwise.run.checkpoint import read_checkpoint
from classwise.training.state import Progress
from tests.helpers.scenes import command, contents, plain_table, untouched, write_config, write_csv

LOSSES = ("--vary", "loss.name=cross_entropy,focal")
MODEL = "checkpoints/last/model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config of one epoch, and in `out` its comparison of two losses with two seeds."""
    folder = tmp_path_factory.mktemp("compare")
    plain_table(folder, 16)
    write_config(folder, training__epochs=1)
    command("compare", folder / "classwise.toml", *LOSSES, "--seeds", 2, "--out", folder / "out").ok()
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to change; the data stays where it was, so that the config is the same."""
    shutil.copytree(whole / "out", tmp_path / "out")
    return tmp_path


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Bytes and time of change of every file of every run."""
    return {
        name: ((folder / name).stat().st_mtime_ns, data)
        for name, data in contents(folder).items()
        if "seed-" in name
    }


def runs(folder: Path) -> list[str]:
    """The runs' folders."""
    return sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/*/status.json"))


@pytest.mark.parametrize(
    ("parts", "scored"),
    [
        ("train train valid test", "the test rows of column 'part', which train nothing and choose nothing"),
        (
            "train train train valid",
            "the validation rows of column 'part'; each run chooses its epoch on other rows",
        ),
    ],
)
def test_the_parts_of_a_column_are_scored(tmp_path: Path, parts: str, scored: str) -> None:
    """Every run on the same rows, though it chooses its epoch: the last 8 of 32 rows."""
    rows = plain_table(tmp_path, 32)
    cells = [part for part in parts.split() for _ in range(8)]
    table = [[*row, cell] for row, cell in zip(rows, cells, strict=True)]
    write_csv(tmp_path / "samples.csv", ("path", "label", "part"), table)
    quick = {"training__epochs": 2, "selection__patience": 1, "report__resamples": 0}
    config = write_config(tmp_path, **quick, data__valid=None, data__split="part")
    found = command("compare", config, *LOSSES, "--seeds", 1, "--out", tmp_path / "out").ok()
    assert f"scored: {scored}" in found.err
    for run_folder in runs(tmp_path / "out"):
        split = pl.read_csv(tmp_path / "out" / run_folder / "split.csv")
        assert split.filter(split["split"] == "test")["id"].to_list() == [row[0] for row in rows[24:]]
        assert split.filter(split["split"] == "valid").height > 0


def test_every_variant_is_trained_with_every_seed(whole: Path) -> None:
    """Plain run directories, each as `classwise train` alone makes it; the tables hold their numbers."""
    out = whole / "out"
    wanted = [f"loss.name={loss}/seed-{seed}" for loss in ("cross_entropy", "focal") for seed in (42, 43)]
    assert runs(out) == wanted
    options = ("--loss.name", "focal", "--seed", 43, "--run", whole / "alone", "--quiet")
    command("train", whole / "classwise.toml", *options).ok()
    assert (whole / "alone" / MODEL).read_bytes() == (out / wanted[3] / MODEL).read_bytes()

    table = pl.read_csv(out / "compare.csv")
    metrics = [json.loads((out / name / "metrics.json").read_text()) for name in wanted]
    assert table["value"].to_list() == [found["value"] for found in metrics]
    assert table["epoch"].to_list() == [1] * 4
    assert table["accuracy"].to_list() == [found["targets"]["label"]["accuracy"] for found in metrics]
    summary = pl.read_csv(out / "summary.csv")
    assert summary["n"].to_list() == [2, 2]
    values = table["value"].to_list()
    assert summary["mean"].to_list() == pytest.approx([sum(values[:2]) / 2, sum(values[2:]) / 2])
    assert summary["difference"][1] == pytest.approx(sum(values[2:]) / 2 - sum(values[:2]) / 2)
    plan = json.loads((out / "compare.json").read_text())
    assert sorted(row["folder"] for row in plan["runs"]) == wanted
    assert len({row["sha256"] for row in plan["runs"]}) == 4


def test_a_second_time_nothing_is_trained(whole: Path, folder: Path) -> None:
    """The same command writes the same tables again and touches no run."""
    before, csv = state(folder / "out"), (folder / "out/compare.csv").read_bytes()
    again = command("compare", whole / "classwise.toml", *LOSSES, "--seeds", 2, "--out", folder / "out").ok()
    assert state(folder / "out") == before
    assert (folder / "out/compare.csv").read_bytes() == csv
    assert "4 runs, 4 of them already done" in again.err
    assert "training" not in again.err
    assert again.path == folder / "out/compare.html"
    assert again.out.splitlines()[1].split()[:2] == ["loss.name=cross_entropy", "2"]


def test_seeds_and_variants_may_be_added(whole: Path, folder: Path) -> None:
    """Only what is new is trained."""
    before, out = state(folder / "out"), folder / "out"
    vary = ("--vary", "loss.name=cross_entropy,focal,balanced_softmax")
    found = command("compare", whole / "classwise.toml", *vary, "--seeds", 3, "--out", out).ok()
    assert found.err.count("] training") == 5
    assert before.items() <= state(out).items()
    assert len(runs(out)) == 9
    assert pl.read_csv(out / "summary.csv")["n"].to_list() == [3, 3, 3]


def test_another_config_is_refused_by_its_keys(whole: Path, folder: Path) -> None:
    """The message names the keys that differ, then and now; nothing is touched."""
    options = ("--training.epochs", 2, "--optimizer.lr", 0.01, "--seeds", 3)
    with untouched(folder):
        found = command("compare", whole / "classwise.toml", *LOSSES, *options, "--out", folder / "out")
    assert found.code == 1
    assert "optimizer.lr: 0.001 before, 0.01 now" in found.err
    assert "training.epochs: 1 before, 2 now" in found.err
    shutil.rmtree(folder / "out/loss.name=cross_entropy")
    shutil.rmtree(folder / "out/loss.name=focal")
    command(
        "compare", whole / "classwise.toml", *LOSSES, *options[:4], "--seeds", 1, "--out", folder / "out"
    ).ok()
    assert len(runs(folder / "out")) == 2


@pytest.mark.parametrize("update", [1, 3])
def test_a_stop_leaves_what_can_go_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: int
) -> None:
    """Ctrl-C in the first or the second run: exit 75, and the same command ends in the same bytes."""
    count, seen, out = Progress.end_update, [], tmp_path / "out"

    def press(progress: Progress, *arguments: Any, **options: Any) -> None:
        count(progress, *arguments, **options)
        seen.append(progress)
        if len(seen) == update:
            os.kill(os.getpid(), signal.SIGINT)

    order = ("compare", whole / "classwise.toml", *LOSSES, "--seeds", 2, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "end_update", press)
        stopped = command(*order)
    assert stopped.code == 75, stopped.err
    assert "the same command continues" in stopped.err
    assert "Traceback" not in stopped.err
    assert len(runs(out)) == (update + 1) // 2
    assert f"{(update - 1) // 2} of 4 runs done" in (out / "compare.html").read_text()
    assert "resuming" in command(*order).ok().err
    for name in runs(whole / "out"):
        assert (out / name / MODEL).read_bytes() == (whole / "out" / name / MODEL).read_bytes()


def test_a_signal_at_a_runs_end_is_not_lost(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is about to end takes no notice of it; the comparison does, and begins no other."""
    train = run.train

    def press(*arguments: Any, **options: Any) -> run.Run:
        done = train(*arguments, **options)
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
        return done

    monkeypatch.setattr(run, "train", press)
    with pytest.raises(Interrupted, match="1 of 4 runs done"):
        compare(whole / "classwise.toml", grid([LOSSES[1]]), 2, tmp_path / "out", quiet=True)
    assert len(runs(tmp_path / "out")) == 1


def test_a_run_without_a_usable_checkpoint_is_begun_again(whole: Path, folder: Path) -> None:
    """Killed before its first checkpoint, or with a damaged one: the folder is made anew, the others stay."""
    out = folder / "out"
    first, second, *_ = (out / name for name in runs(out))
    shutil.rmtree(first / "checkpoints")
    status = json.loads((second / "status.json").read_text())
    (second / "status.json").write_text(json.dumps(status | {"state": "running"}))
    for file in second.glob("checkpoints/*/model.safetensors"):
        file.write_bytes(b"x" + file.read_bytes()[1:])
    (first / "status.json").unlink()
    found = command("compare", whole / "classwise.toml", *LOSSES, "--seeds", 2, "--out", out).ok()
    assert found.err.count("seed 42: ") + found.err.count("seed 43: ") == 2
    for name in runs(whole / "out"):
        assert (out / name / MODEL).read_bytes() == (whole / "out" / name / MODEL).read_bytes()


def test_a_run_that_fails_stops_no_other(whole: Path, tmp_path: Path) -> None:
    """A variant whose data cannot be read is in the table as failed with its reason; exit code 1."""
    vary = ("--vary", "data.path=path,nowhere")
    found = command("compare", whole / "classwise.toml", *vary, "--seeds", 2, "--out", tmp_path / "out")
    assert found.code == 1
    assert found.err.splitlines()[-1] == "error: 2 of 4 runs failed; the table does not include them"
    table = pl.read_csv(tmp_path / "out/compare.csv")
    assert table["status"].to_list() == ["finished"] * 2 + ["failed"] * 2
    assert "no column 'nowhere'" in table["message"][2]
    assert found.out.splitlines()[2].split()[:2] == ["data.path=nowhere", "0"]
    assert "nowhere" in (tmp_path / "out/compare.html").read_text()


def test_a_config_that_is_wrong_trains_nothing(whole: Path, tmp_path: Path) -> None:
    """Every variant is read before the first one trains, and the message names the variant and the key."""
    for vary, says in (
        ("loss.name=cross_entropy,fokal", "variant loss.name=fokal: .*did you mean 'focal'"),
        ("optimizer.lr=1e-3,-1", "optimizer.lr: found -1"),
        ("data.mix_share=1,0.5", "^variant data.mix_share=0.5: data.mix_share: .*nothing is mixed"),
        ("selection.metric=macro_f1,accuracy", "judged by accuracy, macro_f1"),
    ):
        with pytest.raises(ConfigError, match=says):
            compare(whole / "classwise.toml", grid([vary]), 1, tmp_path / "out", quiet=True)
    for seeds, jobs in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError, match="must be 1 or more"):
            compare(whole / "classwise.toml", grid([]), seeds, tmp_path / "out", jobs=jobs, quiet=True)
    twice = [Variant("a", ()), Variant("a", (("loss.name", "focal"),))]
    for variants in (twice, [], [Variant(" ", ())], [Variant("\udc80", ())]):
        with pytest.raises(ConfigError, match="compare: "):
            compare(whole / "classwise.toml", variants, 1, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_warnings_are_said_once_a_variant(whole: Path, tmp_path: Path) -> None:
    """Before the first run, whatever the number of seeds, with the variant's name; and no run scores baselines."""
    vary = ("--vary", "selection.patience=1,5", "--training.epochs", 2, "--seeds", 2)
    found = command("compare", whole / "classwise.toml", *vary, "--out", tmp_path / "out").ok()
    said = "warning: selection.patience=5: selection.patience = 5: has no effect, since training.epochs is 2"
    assert found.err.splitlines()[0] == said
    assert found.err.count("has no effect") == 1
    for name in runs(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / name / "status.json").read_text())["baselines"] is None


def test_where_every_run_fails_there_is_still_a_page(whole: Path, tmp_path: Path) -> None:
    """Also if nobody knows the metric that they were to be judged by."""
    vary = ("--vary", "optimizer.lr=0.1,0.2", "--selection.metric", "nonsense", "--seeds", 1)
    found = command("compare", whole / "classwise.toml", *vary, "--out", tmp_path / "out")
    assert found.code == 1
    assert "selection.metric: found 'nonsense'" in found.err
    assert "0 of 2 runs done" in (tmp_path / "out/compare.html").read_text()
    assert (tmp_path / "out/compare.svg").exists()


def test_one_seed_and_other_rows_are_said_plainly(whole: Path, tmp_path: Path) -> None:
    """One seed has an interval over rows and no verdict; variants that are scored on other rows are no pairs."""
    found = compare(whole / "classwise.toml", grid(["data.valid=0.25,0.5"]), 1, tmp_path / "out", quiet=True)
    assert "a single seed does not show" in found.warnings[0]
    assert found.warnings[1].startswith("seed 42: data.valid=0.5 scored on other rows than data.valid=0.25")
    assert found.summary[0].score is not None
    assert found.summary[0].score.interval is not None
    assert found.summary[1].difference is not None
    assert found.summary[1].difference.interval is None


def test_a_choice_of_epochs_is_not_scored_by_the_rows_that_made_it(whole: Path, tmp_path: Path) -> None:
    """Where an epoch is chosen, what data.valid describes becomes the test; the tables hold the test's score, beside
    it that of the rows which chose, and everything says what was scored."""
    vary = ("--vary", "training.epochs=1,3", "--selection.first_epoch", 1, "--seeds", 2)
    out = tmp_path / "out"
    found = command("compare", whole / "classwise.toml", *vary, "--out", out).ok()
    assert "scored: the rows that data.valid describes; each run chooses its epoch on other rows" in found.err
    table = pl.read_csv(out / "compare.csv")
    for row, folder in zip(table.iter_rows(named=True), runs(out), strict=True):
        metrics = json.loads((out / folder / "metrics.json").read_text())
        assert row["value"] == metrics["test"]["value"]
        assert row["accuracy"] == metrics["test"]["targets"]["label"]["accuracy"]
        assert row["valid"] == metrics["value"]
        split = pl.read_csv(out / folder / "split.csv")["split"].value_counts()
        assert dict(split.iter_rows()) == {"train": 8, "valid": 4, "test": 4}
    scored = json.loads((out / "compare.json").read_text())["scored"]
    assert (scored["kind"], scored["split"]) == ("nested", "test")
    assert scored["text"] in (out / "compare.html").read_text()
    assert set(pl.read_csv(out / "summary.csv")["scored"]) == {scored["text"]}


def test_a_table_is_scored_by_all_seeds(whole: Path, tmp_path: Path) -> None:
    """data.test as a table: its rows are resampled, and the interval of the differences is wider than over the seeds
    alone; --margin decides what is equivalent."""
    plain_table(whole, 24, "other.csv", first=100)
    options = ("--data.test", whole / "other.csv", "--seeds", 2, "--margin", 10)
    found = command("compare", whole / "classwise.toml", *LOSSES, *options, "--out", tmp_path / "out").ok()
    assert "scored: data.test" in found.err
    summary = pl.read_csv(tmp_path / "out/summary.csv")
    assert summary["difference_low"][1] < summary["difference"][1] < summary["difference_high"][1]
    assert summary["low"][0] < summary["mean"][0] < summary["high"][0]
    assert summary["verdict"].to_list() == [None, "equivalent"]
    assert summary["margin"][1] == 10
    assert found.out.splitlines()[2].split()[-1] == "equivalent"


@pytest.mark.parametrize("margin", ["0", "-0.1", "nan", "inf"])
def test_a_margin_is_a_number_above_0(whole: Path, tmp_path: Path, margin: str) -> None:
    """Anything else is refused before a run is trained."""
    found = command("compare", whole / "classwise.toml", f"--margin={margin}", "--out", tmp_path / "out")
    assert found.code == 1
    assert "--margin: found" in found.err
    assert not (tmp_path / "out").exists()


def test_auto_is_measured_once(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run measures precision, threads and readers; the others, later ones too, are trained the same way."""
    monkeypatch.setattr(autotune, "MIN_BATCHES", 0)  # else nothing is measured for runs as short as these
    overrides = [("training.precision", "auto"), ("data.workers", "auto"), ("data.cache", "off")]
    for seeds in (2, 3):
        compare(whole / "classwise.toml", grid([LOSSES[1]]), seeds, tmp_path / "out", overrides, quiet=True)
    logs = [path.read_text() for path in tmp_path.glob("out/*/*/log.txt")]
    assert len(logs) == 6
    assert sum("measuring" in log for log in logs) == 1
    configs = [tomllib.loads(path.read_text()) for path in tmp_path.glob("out/*/*/config.toml")]
    names = ("precision", "threads", "memory_format", "compile")
    plans = [
        {name: c["training"][name] for name in names}
        | {"workers": c["data"]["workers"], "fused": c["optimizer"].get("options", {}).get("fused")}
        for c in configs
    ]
    (kept,) = json.loads((tmp_path / "out/compare.json").read_text())["plans"].values()
    assert plans == [kept] * 6


def test_several_processes_train_the_same(whole: Path, tmp_path: Path) -> None:
    """--jobs 2 ends in the bytes of --jobs 1 with as many threads; a process that dies is one failed run."""
    out = tmp_path / "out"
    found = compare(whole / "classwise.toml", grid([LOSSES[1]]), 2, out, jobs=2, quiet=True)
    assert not found.failed
    assert runs(out) == runs(whole / "out")
    for name in runs(out):
        assert (out / name / MODEL).read_bytes() == (whole / "out" / name / MODEL).read_bytes()


def test_a_process_that_dies_is_one_failed_run(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when memory runs out: the others are trained, in a new process."""
    start, started = parallel._start, []

    def die_first(environment: Mapping[str, str]) -> parallel.Worker[Any]:
        worker = start(environment)
        started.append(worker)
        if len(started) == 1:
            worker.process.kill()
        return worker

    monkeypatch.setattr(parallel, "_start", die_first)
    found = compare(whole / "classwise.toml", grid([]), 2, tmp_path / "out", jobs=2, quiet=True)
    assert [result.state for result in found.results].count("failed") == 1
    assert "its process died (exit code -9)" in found.failed[0].message


@contextlib.contextmanager
def two_processes(folder: Path, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A comparison by two processes that would take very long, in a process group of its own."""
    options = [*LOSSES, "--seeds", "2", "--out", str(out), "--jobs", "2", "--training.epochs", "5000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "classwise", "compare", str(folder / "classwise.toml"), *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_signal_stops_all_processes(whole: Path, tmp_path: Path) -> None:
    """SIGTERM to the parent alone: every run that was under way has a checkpoint, exit 75, no process is left."""
    out = tmp_path / "out"
    with two_processes(whole, out) as process:
        limit = time.monotonic() + 300
        while len(list(out.glob("*/*/history.jsonl"))) < 2 and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.1)
        process.terminate()
        # It reads to the end of stderr, which every process of the comparison holds: none of them is left.
        _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert len(runs(out)) == 2
    for name in runs(out):
        assert json.loads((out / name / "status.json").read_text())["state"] == "interrupted"
        assert read_checkpoint(out / name / "checkpoints/last").update > 0


def test_ctrl_c_while_processes_start_leaves_no_traceback(whole: Path, tmp_path: Path) -> None:
    """A terminal sends it to all of them: those that are still importing end quietly, and nothing has begun."""
    with two_processes(whole, tmp_path / "out") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "[2/4] training" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert "0 of 4 runs done" in err
    assert not runs(tmp_path / "out")

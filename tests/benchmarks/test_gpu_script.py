"""benchmarks/gpu.py runs whole at tiny sizes on a CPU, where no figure is one, and without classwise's packages."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import gpu

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"
TINY = ["--device", "cpu", "--tiny", "--no-compile"]
NAMES = [row.name for group in gpu.GROUPS for row in group.rows]


def test_on_a_cpu_nothing_is_measured(tmp_path: Path) -> None:
    """As somebody types it: every row runs, every figure says 'not measured', in the JSON there is none."""
    command = [sys.executable, SCRIPT, *TINY, "--json", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not measured") == len(NAMES)
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["measured"], found["compiled"], found["torch"]) == (False, False, torch.__version__)
    assert [row["name"] for row in found["rows"]] == NAMES
    assert {(row["value"], row["spread"], row["why"]) for row in found["rows"]} == {(None, None, "")}


def test_without_classwise_its_rows_are_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """PyTorch and timm are enough for the others."""
    monkeypatch.setitem(sys.modules, "classwise.data.loader", None)
    assert gpu.main([*TINY, "--json", str(tmp_path / "found.json")]) == 0
    out = capsys.readouterr().out
    assert (out.count("skipped"), out.count("not measured")) == (5, len(NAMES) - 5)
    assert "classwise cannot be imported: " in out.splitlines()[-1]
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert ["classwise" in row["why"] for row in rows] == [
        *(False, True, False, False, False),
        *(True, True, True, True),
    ]


def test_a_row_that_fails_leaves_the_others_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("no room\nat all")

    monkeypatch.setattr(gpu, "jpeg_data", fails)
    assert gpu.main([*TINY, "--only", "GPU busy", "host waits"]) == 1
    captured = capsys.readouterr()
    assert (captured.out.count("not measured"), captured.out.splitlines()[-1]) == (
        2,
        "failed: RuntimeError: no room",
    )
    assert "Traceback" in captured.err


def test_both_sides_train_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of the bare loop and of classwise's, in fp32 from the same weights: the same weights again."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: contextlib.nullcontext())
    job = gpu.tiny_job(torch.device("cpu"), False)
    state = gpu.our_state(job.large, job, job.large.updates)
    models: list[gpu.Net] = []

    def same_start(model: gpu.Net) -> gpu.Net:
        ours = [*state.model.backbone.parameters(), *state.model.heads.parameters()]
        with torch.no_grad():
            for theirs, own in zip(model.parameters(), ours, strict=True):
                theirs.copy_(own)
        models.append(model)
        return model

    epoch = gpu.bare_loop(job.large, job, same_start)
    before = _weights(models[0])
    epoch()
    data, settings = gpu.OnDevice(job.large, job.device), gpu.our_settings(job)
    from classwise.training.loop import train_one_epoch

    train_one_epoch(state, data.updates(), data, settings)
    moved = (_weights(models[0]) - before).norm()
    assert moved > 0.01
    assert (_weights(state.model) - _weights(models[0])).norm() < 1e-3 * moved


def _weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])


def test_what_overlaps_is_covered_once() -> None:
    """Kernels of several streams, one within another, one after a gap."""
    assert gpu.covered([]) == 0
    assert gpu.covered([(3.0, 4.0), (0.0, 2.0), (1.0, 2.5), (0.5, 1.0), (4.0, 4.5)]) == 4.0


def test_busy_is_what_updates_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of the updates, not of what is between them."""
    now = [0.0]
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: now[0])

    def reading() -> Iterator[int]:
        for i in range(3):
            now[0] += 5.0
            yield i

    busy = gpu.Busy(gpu.tiny_job(torch.device("cpu"), False))
    for _ in busy.timed(reading()):
        now[0] += 2.0
    assert (busy.seconds(), now[0]) == (6.0, 21.0)


def test_the_table() -> None:
    """Figure, spread, and whether a goal was reached, from above or from below."""
    slow = gpu.filled(gpu.LARGE[0], [6000.0, 6100.0, 6900.0])
    cells = gpu.line(slow).split("images/s")[1].split()
    assert cells == [
        ">=",
        "7,000",
        "6,100",
        "6,000",
        "to",
        "6,900",
        "not",
        "reached",
    ]
    assert "not reached" not in gpu.line(gpu.filled(gpu.LARGE[0], [7000.0]))
    assert "not reached" not in gpu.line(gpu.filled(gpu.SYNC[0], [0.0]))
    assert "not reached" in gpu.line(gpu.filled(gpu.SYNC[0], [1.0]))
    assert "not reached" not in gpu.line(gpu.filled(gpu.LARGE[2], [0.5]))

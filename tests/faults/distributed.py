"""Several processes under torchrun: what they compute, and what happens to their runs."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.faults import trials
from tests.faults.counting import Count, Figure
from tests.faults.kills import count_of
from tests.helpers.children import child_environment
from tests.helpers.same_end import differences

ENVIRONMENT = child_environment(CI="true")


def torchrun(processes: int, *arguments: object, options: Sequence[str] = ("--standalone",)) -> list[str]:
    """The command that starts so many processes. The `--` keeps torchrun from reading our options."""
    program = [sys.executable, "-m", "torch.distributed.run", *options, "--nproc-per-node", str(processes)]
    return [*program, "--", *(str(argument) for argument in arguments)]


def classwise(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """`classwise ARGUMENTS` in so many processes; with one, without torchrun."""
    command = [sys.executable, "-m", "classwise", *(str(argument) for argument in arguments)]
    if processes > 1:
        command = torchrun(processes, "-m", "classwise", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=ENVIRONMENT)


def ranks(processes: int, *checks: str) -> dict[str, Any]:
    """What the processes counted; see ranks.py."""
    with tempfile.TemporaryDirectory() as here:
        out = Path(here) / "found.json"
        done = subprocess.run(
            torchrun(processes, "-m", "tests.faults.ranks", out, *checks),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
            env=ENVIRONMENT,
        )
        assert out.exists(), done.stderr[-3000:]
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def together(*checks: str) -> Count:
    """Checks with two and with three processes, as one count."""
    count = Count()
    for processes in (2, 3):
        for name, found in ranks(processes, *checks).items():
            one = count_of(found)
            count.tried += one.tried
            count.held += one.held
            count.failures += one.failures
            for kind, number in one.by.items():
                count.by[f"{kind} ({processes} processes)"] += number
            assert name
    return count


def history(run: Path) -> list[dict[str, Any]]:
    """history.jsonl."""
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


# Runs by the real command


CHANGES: dict[str, Any] = {
    "training__checkpoint_updates": 2,
    "training__threads": 1,
    "training__ema": 0.9,
    "training__epochs": 4,
    "selection__first_epoch": 1,
    "training__accumulate": 1,
    "optimizer": {"name": "sgd", "lr": 0.05},
    "data__sampling": "balanced",
    "data__augment": "strong",
    "report": {"baselines": False, "resamples": 10},
    "targets__age": None,
    "joint": {"targets": ["mask", "gender"]},
}


@contextlib.contextmanager
def drawn(**changes: Any) -> Iterator[tuple[Path, Path]]:
    """A folder with images, and the config in it."""
    from tests.helpers.scenes import PEOPLE, people_table, write_config

    folder = trials.scratch_folder()
    try:
        people_table(folder, 24)
        yield folder, write_config(folder, PEOPLE, **{**CHANGES, **changes})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# In place of `-m classwise`: a program that stops itself after an update, as Slurm or a user would stop it.
STOPPING = """
import os, signal, sys
from classwise.training.state import Progress
end_update = Progress.end_update
def ended(progress, loss, samples):
    end_update(progress, loss, samples)
    if progress.update == int(sys.argv[1]) and os.environ.get("RANK", "0") == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGTERM)
Progress.end_update = ended
from classwise.cli import run_command
code = run_command(sys.argv[3:])
open(os.path.join(os.environ["CODES"], os.environ.get("RANK", "0")), "a").write(f"{code} ")
sys.exit(code)
"""


def stopped(folder: Path, processes: int, update: int, rank: int, *arguments: object) -> list[int]:
    """`classwise ARGUMENTS` in which process `rank` gets SIGTERM after `update`; the exit codes of all processes."""
    program = folder / "stopping.py"
    program.write_text(STOPPING)
    codes = folder / "codes"
    shutil.rmtree(codes, ignore_errors=True)
    codes.mkdir()
    plain = [sys.executable, str(program)]
    command = torchrun(processes, program) if processes > 1 else plain
    subprocess.run(
        [*command, str(update), str(rank), *(str(argument) for argument in arguments)],
        capture_output=True,
        timeout=180,
        check=False,
        env={**ENVIRONMENT, "CODES": str(codes)},
    )
    return [int(path.read_text().split()[-1]) for path in sorted(codes.iterdir())]


def resumed_runs() -> Count:
    """From two processes to one and back, and with the same two; one process is told to stop, all do."""
    import torch
    from safetensors.torch import load_file

    count = Count()
    with drawn() as (folder, config):
        whole = folder / "whole"
        done = classwise(2, "train", config, "--run", whole)
        count.add(done.returncode == 0, "whole run", done.stderr[-500:])
        plans: dict[str, list[tuple[int, int, int]]] = {
            "2 and 2": [(2, 5, 0), (2, 11, 1), (2, 0, 0)],
            "2, 1 and 2": [(2, 5, 1), (1, 11, 0), (2, 0, 0)],
            "2, 1 and 1": [(2, 9, 0), (1, 13, 0), (1, 0, 0)],
            "1, 2 and 1": [(1, 3, 0), (2, 6, 1), (1, 0, 0)],
        }
        for name, steps in plans.items():
            run = folder / name
            arguments: list[object] = ["train", config, "--run", run]
            # One process makes the same updates of twice as many micro-batches.
            arguments += ["--training.accumulate", "2"] if steps[0][0] == 1 else []
            problem = ""
            said = ""
            for processes, update, rank in steps:
                if update:
                    codes = stopped(folder, processes, update, rank, *arguments)
                    if codes != [75] * processes:
                        problem = f"exit codes {codes}"
                    status = json.loads((run / "status.json").read_text())
                    if (status["state"], status["update"]) != ("interrupted", update):
                        problem = f"{status['state']} after update {status['update']}, not {update}"
                else:
                    done = classwise(processes, *arguments)
                    said += done.stderr
                    problem = problem or ("" if done.returncode == 0 else done.stderr[-500:])
                arguments = ["resume", run]
            if not problem and name == "2 and 2":
                problem = differences(whole, run)
            elif not problem:
                pair = [load_file(path / "checkpoints/last/model.safetensors") for path in (whole, run)]
                off = max(
                    float((pair[0][key].double() - pair[1][key].double()).abs().max()) for key in pair[0]
                )
                same = [json.loads((path / "status.json").read_text())["update"] for path in (whole, run)]
                if off > 1e-5 or same[0] != same[1]:
                    problem = f"off by {off:.2g}, updates {same}"
                if "world_size" not in (run / "log.txt").read_text():
                    problem = "nothing was said of the other number of processes"
                count.notes[f"largest difference, {name}"] = f"{off:.1g}"
            count.add(not problem, name, problem)
        assert torch is not None
    return count


def wrong_runs() -> Count:
    """Mistakes and accidents in one process or all: said once, all end, and nothing hangs."""
    count = Count()
    with drawn() as (folder, config):
        dataset = sorted((folder / "사진").iterdir())
        # A mistake that all find.
        done = classwise(2, "train", config, "--run", folder / "a", "--training.epochs", "zero")
        _say_once(count, done, "training.epochs", "a key of the config")
        # An image that only one process checks.
        data = dataset[1].read_bytes()
        dataset[1].write_bytes(data[: len(data) // 2])
        _say_once(count, classwise(2, "train", config, "--run", folder / "b"), "cut short", "a bad image")
        dataset[1].write_bytes(data)
        count.add(not (folder / "b").exists(), "a bad image", "a run directory was left")
        # One that vanishes while a process trains.
        done = _vanishing(folder, config)
        _say_once(count, done, "cannot be read", "an image that vanishes")
        status = json.loads((folder / "c/status.json").read_text())
        count.add(status["state"] == "failed", "an image that vanishes", f"state {status['state']}")
        # What runs in one process.
        done = classwise(2, "report", folder / "c")
        _say_once(count, done, "runs in one process", "a command for one process")
        done = classwise(2, "train", config, "--run", folder / "d", "--loss.name", "soft_f1")
        _say_once(count, done, "soft F1", "a loss for one process")
        _unlike(count, folder, config)
        count.add(_one_killed(folder, config), "a process killed", "did not end, or cannot be resumed")
    return count


def _say_once(count: Count, done: subprocess.CompletedProcess[str], text: str, kind: str) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    held = done.returncode != 0 and len(errors) == 1 and text in done.stderr
    count.add(held, kind, f"exit {done.returncode}, {errors}")


VANISHING = """
import os, sys
from pathlib import Path
from classwise.training.state import Progress
end_update = Progress.end_update
def ended(progress, loss, samples):
    end_update(progress, loss, samples)
    if progress.update == 3 and os.environ["RANK"] == "1":
        from classwise.data import dataset
        read = dataset.read_image
        def gone(path, *arguments, **options):
            return read(Path(str(path) + ".gone"), *arguments, **options)
        dataset.read_image = gone
Progress.end_update = ended
from classwise.cli import run_command
sys.exit(run_command(sys.argv[1:]))
"""


def _vanishing(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    (folder / "vanishing.py").write_text(VANISHING)
    return subprocess.run(
        torchrun(
            *(2, folder / "vanishing.py", "train", config, "--run", folder / "c"), "--data.cache", "off"
        ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=ENVIRONMENT,
    )


# Two processes that are not as alike as torchrun makes them.
APART = """
import os, sys
how, other, *arguments = sys.argv[1:]
second = os.environ["RANK"] == "1"
if how == "no store" and second:
    os.environ["XDG_CACHE_HOME"] = sys.argv[0]  # no folder
if how == "machines":
    os.environ.update(LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    os.environ["XDG_CACHE_HOME"] = os.path.join(other, "cache", os.environ["RANK"])
    arguments += ["--data.source", other + "/samples.csv", "--data.images", other] if second else []
from classwise.cli import run_command
sys.exit(run_command(arguments))
"""


def apart(
    folder: Path, how: str, config: Path, run: Path, other: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Two processes train: "no store", where the second cannot keep decoded images, or "machines", where each is
    the only one on its own and the second's images lie in `other`."""
    (folder / "apart.py").write_text(APART)
    return subprocess.run(
        torchrun(2, folder / "apart.py", how, other or folder, "train", config, "--run", run),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=ENVIRONMENT,
    )


def _unlike(count: Count, folder: Path, config: Path) -> None:
    """Decoded images kept by one process only change nothing; nor do images that are copied to each machine,
    unless one of them is another."""
    kind = "stores and images of each process"
    classwise(2, "train", config, "--run", folder / "like")
    done = apart(folder, "no store", config, folder / "no store")
    problem = done.stderr[-300:] if done.returncode else differences(folder / "like", folder / "no store")
    count.add(not problem, kind, f"a store in one process only: {problem}")
    copy = folder / "copy"
    copy.mkdir()
    for name in ("사진", "samples.csv"):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, copy / name)
    done = apart(folder, "machines", config, folder / "machines", copy)
    problem = done.stderr[-300:] if done.returncode else differences(folder / "like", folder / "machines")
    count.add(not problem, kind, f"two machines: {problem}")
    cached = [sum(path.stat().st_size for path in copy.glob(f"cache/{rank}/**/pixels")) for rank in (0, 1)]
    count.add(cached[0] == cached[1] > 0, kind, f"the machines have stored {cached} bytes")
    dataset = sorted((copy / "사진").iterdir())
    dataset[3].write_bytes(dataset[4].read_bytes())
    done = apart(folder, "machines", config, folder / "other", copy)
    _say_once(count, done, "all need the same files", kind)
    count.add(not (folder / "other").exists(), kind, "a run directory was left")


def _one_killed(folder: Path, config: Path) -> bool:
    """kill -9 of the second process: the first does not wait for ever, and the run can be resumed."""
    run = folder / "e"
    process = subprocess.Popen(
        torchrun(2, "-m", "classwise", "train", config, "--run", run, "--training.epochs", "200"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    until = time.monotonic() + 60
    while not (run / "checkpoints/last").exists() and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = [
        int(child)
        for child in children
        if b"RANK=1\0" in (Path("/proc") / child / "environ").read_bytes().replace(b"LOCAL_RANK=", b"")
    ]
    if not second:
        process.kill()
        return False
    os.kill(second[0], signal.SIGKILL)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return False
    return stopped(folder, 2, 10**6, 0, "resume", run / "nothing") == [1, 1] and _goes_on(folder, run)


def _goes_on(folder: Path, run: Path) -> bool:
    """Whether a resume makes two more updates."""
    before = json.loads((run / "checkpoints/last/state.json").read_text())["progress"]["update"]
    codes = stopped(folder, 2, before + 2, 0, "resume", run)
    return codes == [75, 75] and json.loads((run / "status.json").read_text())["update"] == before + 2


# Two hosts


def two_hosts() -> Count:
    """Two network namespaces as two machines: the second has no run directory and another working folder."""
    count = Count()
    names = [f"cw{os.getpid()}{side}" for side in "ab"]
    with drawn() as (folder, config):
        try:
            for command in (
                *(f"ip netns add {name}" for name in names),
                f"ip link add v{names[0]} netns {names[0]} type veth peer name v{names[1]} netns {names[1]}",
                *(
                    f"ip -n {name} addr add 10.77.0.{i}/24 dev v{name}"
                    for i, name in enumerate(names, start=1)
                ),
                *(f"ip -n {name} link set {device} up" for name in names for device in (f"v{name}", "lo")),
            ):
                subprocess.run(command.split(), check=True, capture_output=True)
            done = _on_two(names, folder, config)
            said = [(folder / side / "said.txt").read_text()[-500:] for side in ("first", "second")]
            count.add(done == [0, 0], "both end well", f"exit codes {done}: {said}")
            count.add(
                not (folder / "second/runs").exists(), "one writes", "the second host has a run directory"
            )
            one = classwise(1, "train", config, "--run", folder / "one", "--training.accumulate", "2")
            count.add(one.returncode == 0, "one process", one.stderr[-300:])
            rows = [
                [json.loads(line) for line in path.read_text().splitlines()]
                for path in (folder / "first/runs/사람 이름/history.jsonl", folder / "one/history.jsonl")
            ]
            off = max(abs(a["train_loss"] - b["train_loss"]) for a, b in zip(*rows, strict=True))
            count.add(off < 1e-5, "the losses of one process", f"off by {off}")
            count.notes["largest difference of a loss"] = f"{off:.1g}"
        except (subprocess.CalledProcessError, OSError, ValueError) as error:
            count.add(False, "two hosts", f"{type(error).__name__}: {error}")
        finally:
            for name in names:
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return count


def _on_two(names: list[str], folder: Path, config: Path) -> list[int]:
    started = []
    for number, name in enumerate(names):
        here = folder / ("first", "second")[number]
        here.mkdir()
        options = [
            *("--nnodes", "2", "--node-rank", str(number), "--rdzv-backend", "c10d", "--rdzv-id", "x"),
            *("--rdzv-endpoint", "10.77.0.1:29511", "--local-addr", f"10.77.0.{number + 1}"),
            # Both have the machine's name, by which a real first host would know itself.
            *("--rdzv-conf", f"is_host={int(number == 0)}"),
        ]
        device = {"GLOO_SOCKET_IFNAME": f"v{name}"}
        command = torchrun(1, "-m", "classwise", "train", config, options=options)
        started.append(
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command],
                cwd=here,
                env={**ENVIRONMENT, **device},
                stdout=subprocess.DEVNULL,
                stderr=(here / "said.txt").open("wb"),
            )
        )
    return [process.wait(180) for process in started]


FIGURES = [
    Figure(
        8,
        "distributed-gradients",
        "windows shared by 2 and 3 processes, all losses, masks, learned weights, and the loop itself: gradients of one"
        " process to 1e-12 (float64) and 1e-6 (float32)",
        lambda: together("gradients=400", "loop"),
    ),
    Figure(
        8,
        "distributed-metrics",
        "validation sets of 1 to 101 rows, every type of target: all scores equal to the bit",
        lambda: together("metrics=101"),
    ),
    Figure(
        8,
        "distributed-states",
        "runs with an average of the weights and batch norm: the same bytes in every process, within 1e-5 of one",
        lambda: together("runs"),
    ),
    Figure(
        8,
        "distributed-resume",
        "torchrun runs stopped and resumed with 2 and 1 processes, balanced sampling, average of the weights",
        resumed_runs,
    ),
    Figure(
        8, "distributed-accidents", "mistakes and accidents in one process: said once, all end", wrong_runs
    ),
    Figure(8, "distributed-hosts", "two network namespaces as two machines", two_hosts),
    Figure(
        9,
        "non-finite",
        "losses, gradients and validations that are not finite, on one process or all, in any update",
        lambda: together("non-finite"),
    ),
]

"""Two and three processes compute what one would; without the sums, the merging or the turns they would not."""

import json
import math
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from classwise.own_parts.run_code import read_code
from tests.faults import distributed
from tests.faults.forked import Child, Hook, free_port, rank_environment, start
from tests.helpers.own_parts import guide_files
from tests.helpers.pretrained import probed_config, save_weights
from tests.helpers.same_end import differences, timeless_history
from tests.helpers.scenes import PEOPLE, class_folder, people_table, plain_table

CHECKS = ("gradients=30", "loop", "metrics=40", "runs", "non-finite")
SABOTAGES = ("gradients=30!mean loss", "metrics=20!padded sampler", "runs!no merging", "non-finite!unchecked")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """All checks of two processes, in one launch of torchrun."""
    return distributed.ranks(2, *CHECKS)


@pytest.mark.parametrize("check", CHECKS)
def test_two_processes_are_as_one(found: dict[str, Any], check: str) -> None:
    """Gradients, scores, states, and what happens when a number is not finite."""
    assert found[check]["failures"] == []
    assert found[check]["held"] == found[check]["tried"] >= 4


def test_shards_of_every_kind_were_tried(found: dict[str, Any]) -> None:
    """Even, uneven and empty ones, with each of three models."""
    assert {"even shards", "uneven shards", "an empty shard"} == set(found["gradients=30"]["by"])
    assert len(found["loop"]["by"]) == 9


@pytest.mark.full
def test_sabotage() -> None:
    """The plain mean loss, a sampler that pads, statistics that are each process's own, steps by numbers that are
    not finite."""
    found = distributed.ranks(2, *SABOTAGES)
    for check in SABOTAGES:
        assert found[check]["held"] < found[check]["tried"], check


def two(
    files: Path,
    arguments: Sequence[object],
    second: Sequence[object] = (),
    environments: Sequence[Mapping[str, str]] = ({}, {}),
    hooks: Sequence[Hook] = (),
) -> list[Child]:
    """The command in two processes as torchrun starts them, forked from one that has everything imported. The second
    gets more arguments and the hooks, each its environment. They have ended when this returns."""
    port, ranks = free_port(), list[Child]()
    for rank, changes in enumerate(environments):
        given = [*arguments, *second] if rank else arguments
        environment = rank_environment(rank, 2, port) | dict(changes)
        group = ranks[0].group if ranks else 0
        ranks.append(start(files / str(rank), given, hooks if rank else (), environment, group=group))
    for rank in ranks:
        rank.wait()
    return ranks


def stop_here() -> None:
    """A signal to this process alone."""
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_goes_from_two_processes_to_one() -> None:
    """Stopped by a signal to the second process only; resumed alone, it ends near the run of two."""
    stop = Hook("classwise.training.state:Progress.end_update", stop_here, call=3)
    with distributed.drawn(training__epochs=2) as (folder, config):
        run, one = folder / "run", folder / "one"
        stopped = two(folder / "stopped", ["train", config, "--run", run], hooks=[stop])
        assert [rank.code for rank in stopped] == [75, 75], stopped[0].said
        resumed = start(folder / "resumed", ["resume", run])
        alone = start(folder / "alone", ["train", config, "--run", one, "--training.accumulate", "2"])
        assert resumed.wait() == alone.wait() == 0, (resumed.said, alone.said)
        assert "world_size 2 then, 1 now" in resumed.said
        losses = [[row["train_loss"] for row in distributed.history(path)] for path in (run, one)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_mistake_is_said_once() -> None:
    """All processes of the real torchrun end, and one of them says why."""
    with distributed.drawn() as (folder, config):
        image = sorted((folder / "사진").iterdir())[1]
        image.write_bytes(image.read_bytes()[:200])
        done = distributed.classwise(2, "train", config, "--run", folder / "run")
        assert done.returncode != 0
        assert [line for line in done.stderr.splitlines() if line.startswith("error: ")][1:] == []
        assert "cut short" in done.stderr
        assert not (folder / "run").exists()


def test_a_folder_gets_one_config() -> None:
    """Rank 0 alone looks at the images and writes config and table beside the run; both processes train with them."""
    options = ("--training.epochs", "1", "--data.workers", "0", "--training.device", "cpu")
    with distributed.drawn() as (folder, _):
        photos = class_folder(folder / "photos", {"a": 8, "b": 8})
        ranks = two(folder / "files", ["train", photos, "--run", folder / "run", *options])
        assert [rank.code for rank in ranks] == [0, 0], ranks[0].said
        assert [rank.said.count("run.toml: the config") for rank in ranks] == [1, 0]
        assert sorted(path.name for path in folder.glob("run*")) == ["run", "run.csv", "run.toml"]
        none = two(folder / "none", ["train", folder / "files", "--run", folder / "other", *options])
        assert [rank.code for rank in none] == [1, 1], none[0].said
        assert [rank.said.count("found no images") for rank in none] == [1, 0]


def test_a_store_in_one_process_only() -> None:
    """The second process cannot keep decoded images: nobody waits for its word, and the end is the same."""
    with distributed.drawn(training__epochs=1) as (folder, config):
        like = two(folder / "files like", ["train", config, "--run", folder / "like"])
        assert [rank.code for rank in like] == [0, 0], like[0].said
        no_folder = {"XDG_CACHE_HOME": str(config)}
        ranks = two(folder / "files", ["train", config, "--run", folder / "run"], (), ({}, no_folder))
        assert [rank.code for rank in ranks] == [0, 0], ranks[0].said
        assert differences(folder / "like", folder / "run") == ""


OWN: dict[str, Any] = {
    "data__augment": "my_augment.py:augment",
    "model__backbone": "my_model.py:Net",
    "loss": {"name": "my_losses.py:Poly"},
    "optimizer": {"name": "my_optim.py:Sign"},
    "targets__mask__metrics": ["my_metrics.py:Hits"],
    "training__epochs": 2,
}


def test_code_of_the_users_own_in_two_processes() -> None:
    """Stopped by a signal to one of them, and resumed by two with trust: the bytes of a run without a stop. Without
    trust, both refuse, and one says why."""
    stop = Hook("classwise.training.state:Progress.end_update", stop_here, call=3)
    with distributed.drawn(**OWN) as (folder, config):
        for name, code in guide_files().items():
            (folder / name).write_text(code, encoding="utf-8")
        whole, run = folder / "whole", folder / "run"
        ranks = two(folder / "files whole", ["train", config, "--run", whole])
        assert [rank.code for rank in ranks] == [0, 0], ranks[0].said
        stopped = two(folder / "files stopped", ["train", config, "--run", run], hooks=[stop])
        assert [rank.code for rank in stopped] == [75, 75], stopped[0].said
        refused = two(folder / "files refused", ["resume", run])
        assert [rank.code for rank in refused] == [1, 1]
        assert [rank.said.count("has code of its own") for rank in refused] == [1, 0]
        trust = ",".join(source.digest for source in read_code(run))
        resumed = two(folder / "files resumed", ["resume", run, "--trust", trust])
        assert [rank.code for rank in resumed] == [0, 0], resumed[0].said
        assert differences(whole, run) == ""


def test_other_code_on_another_machine() -> None:
    """Two files of one name and different contents are not one run."""
    with distributed.drawn(**OWN) as (folder, config):
        other = folder / "other"
        other.mkdir()
        for name, code in guide_files().items():
            (folder / name).write_text(code, encoding="utf-8")
            (other / name).write_text(code + "# other\n", encoding="utf-8")
        elsewhere = ["--loss.name", str(other / "my_losses.py:Poly")]
        ranks = two(folder / "files", ["train", config, "--run", folder / "run"], elsewhere)
        assert all(rank.code for rank in ranks)
        assert sum(rank.said.count("your own code of process 1 of 2 differs") for rank in ranks) == 1
        assert not (folder / "run").exists()


def test_another_image_on_another_machine() -> None:
    """Each machine checks its own files, and an image that differs is named."""
    with distributed.drawn() as (folder, config):
        copy = folder / "copy"
        shutil.copytree(folder, copy)
        images = sorted((copy / "사진").iterdir())
        images[3].write_bytes(images[4].read_bytes())
        machine = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        machines = [machine | {"XDG_CACHE_HOME": str(folder / f"cache {rank}")} for rank in range(2)]
        elsewhere = ["--data.source", copy / "samples.csv", "--data.images", copy]
        ranks = two(folder / "files", ["train", config, "--run", folder / "run"], elsewhere, machines)
        assert all(rank.code for rank in ranks)
        said = [line for rank in ranks for line in rank.said.splitlines() if line.startswith("error: ")]
        assert len(said) == 1
        assert images[3].name in said[0]
        assert "all need the same files" in said[0]
        assert not (folder / "run").exists()


def test_two_stages_in_two_processes(tmp_path: Path) -> None:
    """Rank 0 fits the heads, and both processes fine-tune from them: the first answer is that of one process, to the
    bit, and what is kept is near. Stopped in the second stage, the two end in the same bytes."""
    people_table(tmp_path, 24)
    frozen = {"training__batch_norm": "frozen", "optimizer": {"name": "sgd", "lr": 1e-3}}
    config = probed_config(tmp_path, PEOPLE, **frozen, training__accumulate=1)
    whole, stopped, one = tmp_path / "whole", tmp_path / "stopped", tmp_path / "one"
    alone = start(tmp_path / "files one", ["train", config, "--run", one, "--training.accumulate", "2"])
    assert alone.wait() == 0, alone.said
    ranks = two(tmp_path / "files whole", ["train", config, "--run", whole])
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].said
    assert [rank.said.count("first answer after") for rank in ranks] == [1, 0]
    file = "checkpoints/first/model.safetensors"
    assert (whole / file).read_bytes() == (one / file).read_bytes()
    losses = [[row["train_loss"] for row in timeless_history(path)] for path in (whole, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    plans = [json.loads((path / "metrics.json").read_text())["plan"] for path in (whole, one)]
    assert plans[0]["first_answer"] == plans[1]["first_answer"]
    assert plans[0]["kept"] == plans[1]["kept"]

    stop = Hook("classwise.training.state:Progress.end_update", stop_here, call=3)
    ranks = two(tmp_path / "files stopped", ["train", config, "--run", stopped], hooks=[stop])
    assert [rank.code for rank in ranks] == [75, 75], ranks[0].said
    ranks = two(tmp_path / "files resumed", ["resume", stopped])
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].said
    assert differences(whole, stopped) == ""


def test_a_first_answer_that_fails_fails_in_both(tmp_path: Path) -> None:
    """What rank 0 cannot compute is said once, and nobody waits for its heads."""
    plain_table(tmp_path, 16)
    weights = save_weights(tmp_path / "weights.safetensors")
    tensors = load_file(weights)
    save_file(
        {name: value * math.nan if value.is_floating_point() else value for name, value in tensors.items()},
        weights,
    )
    config = probed_config(tmp_path, report__baselines=False)
    ranks = two(tmp_path / "files", ["train", config, "--run", tmp_path / "run"])
    assert [rank.code for rank in ranks] == [1, 1], ranks[0].said
    assert [rank.said.count("are not finite: test_resnet") for rank in ranks] == [1, 0]
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "failed"

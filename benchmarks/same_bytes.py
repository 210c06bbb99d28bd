"""Do the same bytes still come out? A fixed set of small runs, and one SHA-256 for each kind of result of each run.

    python benchmarks/same_bytes.py [--only NAME ...] [--json FILE] [--against FILE]

The runs cover the three demos shortened, every type of target, every loss once, accumulation with a short last update,
mixing, averaging, freezing, two processes, and a resume in mid-epoch. For each run the script prints a digest of

    weights      tensors of the best checkpoint and of the last one, the optimizer's among them
    history      history.jsonl without seconds and images per second
    metrics      metrics.json
    predictions  predictions.csv, and what `predict` and `submit` write for the demos

so a refactoring that is meant to change no number can be checked against the commit before it: run the script there
with `--json`, and here with `--against`. It exits 1 where a digest differs. All runs use one thread, fp32 and no
workers, so the digests depend on the machine's processor and on the library versions, and on nothing else.
"""

import argparse
import copy
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported, and for the processes that are started from here as well.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from safetensors.numpy import load_file

import classwise

Digests = dict[str, str]
Tree = dict[str, Any]

# What would be measured on this machine otherwise, and so could differ from one start to the next.
FIXED: Tree = {
    "data": {"workers": 0, "cache": "off"},
    "training": {
        "epochs": 2,
        "threads": 1,
        "precision": "fp32",
        "memory_format": "channels_last",
        "compile": False,
        "batch_size": 16,
        "device": "cpu",
    },
    "report": {"baselines": False, "resamples": 50},
}
SHAPES_ROWS = 120
CLASS_LOSSES: dict[str, Tree] = {
    "cross_entropy": {"label_smoothing": 0.1, "class_weights": "inverse"},
    "focal": {"class_weights": "effective", "weights_from_epoch": 2},
    "balanced_softmax": {},
    "logit_adjustment": {"tau": 0.7},
    "ldam": {"class_weights": "effective"},
    "gce": {},
    "soft_f1": {},
}
OTHER_LOSSES: dict[str, dict[str, Tree]] = {
    "tags": {"bce": {"pos_weight": "balanced"}, "multilabel_focal": {"alpha": 0.3}, "asymmetric": {}},
    "size": {"corn": {}},
    "area": {"mse": {}, "mae": {}, "smooth_l1": {}, "huber": {}},
    "match": {"listnet": {}, "pairwise_logistic": {}},
}
TARGETS: dict[str, Tree] = {
    "colour": {"column": "colour", "labels": ["red", "green", "blue", "yellow", "purple"]},
    "tags": {
        "column": "shapes",
        "type": "multilabel",
        "separator": "|",
        "labels": ["circle", "square", "triangle", "star", "cross"],
    },
    "size": {"column": "size", "type": "ordinal", "labels": ["tiny", "small", "medium", "large"]},
    "area": {"column": "area", "type": "regression"},
    "match": {"column": "relevance", "type": "ranking", "query": "query"},
}
METRICS = {"colour": "macro_f1", "tags": "map", "size": "quadratic_kappa", "area": "r2", "match": "ndcg"}


def merged(*trees: Tree) -> Tree:
    """The trees joined; later ones win."""
    result: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def shapes_config(folder: Path, targets: list[str], *changes: Tree) -> Tree:
    """A config for some targets of the drawn shapes."""
    table = {"colour": "colour.csv", "size": "size.csv", "area": "area.csv"}
    base = {
        "seed": 3,
        "name": "run",
        "data": {
            "source": str(
                folder / (table.get(targets[0], "samples.csv") if len(targets) == 1 else "samples.csv")
            ),
            "images": str(folder),
            "group": "scene",
            "valid": 0.25,
            "unanswered": "skip",
            "augment": {"preset": "none", "flip": 0.5, "brightness": 0.1},
        },
        "targets": {name: TARGETS[name] for name in targets},
        "model": {"backbone": "small_cnn", "image_size": [32, 32]},
        "optimizer": {"name": "adamw", "lr": 4e-3, "weight_decay": 0.05},
        "selection": {"metric": f"{targets[0]}.{METRICS[targets[0]]}"},
    }
    return merged(FIXED, base, *changes)


def sha(data: bytes) -> str:
    """The first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def tensors_digest(run: Path) -> str:
    """Names, types, shapes and bytes of every tensor of both checkpoints."""
    digest = hashlib.sha256()
    for file in sorted(run.glob("checkpoints/*/*.safetensors")):
        for name, value in sorted(load_file(file).items()):
            header = f"{file.parent.name} {file.name} {name} {value.dtype} {value.shape}"
            digest.update(header.encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]


def run_digests(run: Path, *more: Path) -> Digests:
    """The digests of a finished run; `more` files count as predictions."""
    history = []
    for line in (run / "history.jsonl").read_text().splitlines():
        row = json.loads(line)
        del row["seconds"], row["images_per_second"]
        history.append(row)
    metrics = json.loads((run / "metrics.json").read_text())
    predictions = (run / "predictions.csv").read_bytes()
    return {
        "weights": tensors_digest(run),
        "history": sha(json.dumps(history, sort_keys=True).encode()),
        "metrics": sha(json.dumps(metrics, sort_keys=True).encode()),
        "predictions": sha(predictions + b"".join(file.read_bytes() for file in more)),
    }


def write_config(folder: Path, tree: Tree) -> Path:
    """`tree` as the config file of this folder."""
    path = folder / "classwise.toml"
    path.write_text(classwise.make_config(tree).to_toml())
    return path


def train(folder: Path, tree: Tree) -> Path:
    """Train in this process; returns the run directory."""
    return classwise.train(write_config(folder, tree), folder / "run", quiet=True).path


def plain(targets: list[str], *changes: Tree) -> Callable[[Path, Path], Digests]:
    """One run on the shapes, in this process."""
    return lambda folder, data: run_digests(train(folder, shapes_config(data / "shapes", targets, *changes)))


def command(*words: object, code: int = 0) -> None:
    """`classwise WORDS` in a process of its own."""
    line = [sys.executable, "-m", "classwise", *map(str, words)]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    if result.returncode != code:
        raise SystemExit(f"{line}: exit code {result.returncode}\n{result.stderr}")


def two_processes(folder: Path, data: Path) -> Digests:
    """torchrun with two processes, accumulation and a joint of unequal batches."""
    changes = {"training": {"accumulate": 2, "ema": 0.9}, "data": {"mixup": 0.2}}
    config = write_config(folder, shapes_config(data / "shapes", ["colour"], changes))
    line = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "--"]
    line += ["-m", "classwise", "train", str(config), "--run", str(folder / "run")]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(result.stderr)
    return run_digests(folder / "run")


def resumed(folder: Path, data: Path) -> Digests:
    """Stopped by a signal in mid-epoch, and resumed: the digests of an uninterrupted run."""
    changes = {"training": {"epochs": 3, "batch_size": 2, "checkpoint_updates": 5}}
    config = write_config(folder, shapes_config(data / "shapes", ["colour", "size"], changes))
    run = folder / "run"
    line = [sys.executable, "-m", "classwise", "train", str(config), "--run", str(run)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and updates(run) < 50:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    if process.wait() != 75:
        raise SystemExit(f"resume: stopped with exit code {process.returncode}, not 75")
    command("resume", run)
    return run_digests(run)


def updates(run: Path) -> int:
    """How many updates the run's last checkpoint has seen."""
    try:
        return int(json.loads((run / "status.json").read_text())["update"])
    except (OSError, ValueError, KeyError):
        return 0


def clothes(folder: Path, data: Path) -> Digests:
    """The default demo, two epochs: train, predict and submit."""
    from classwise.demo.tour import CLOTHES

    source = data / "clothes"
    paths = {"data": {"source": str(source / "train.csv"), "images": str(source)}}
    short = {"selection": {"first_epoch": 1}, "training": {"batch_size": 32}}
    run = train(folder, merged(CLOTHES, FIXED, paths, short))
    predictions, submission = folder / "predictions.csv", folder / "submission.csv"
    command("predict", run, source / "test.csv", "--images", source, "--out", predictions)
    command("submit", run, source / "template.csv", "--images", source, "--out", submission)
    return run_digests(run, predictions, submission)


def faces(folder: Path, data: Path) -> Digests:
    """The face-mask demo, 24 people: three targets and their joint, as `init` writes it."""
    source = data / "faces"
    command("init", source, "--out", folder)
    given = classwise.load_config(folder / "classwise.toml").to_dict()
    size = {"model": {"backbone": "small_cnn", "weights": "none", "image_size": [48, 36], "pooling": "last"}}
    run = train(folder, merged(given, FIXED, size, {"training": {"accumulate": 2}}))
    submission = folder / "submission.csv"
    command("submit", run, source / "eval/info.csv", "--images", source / "eval/images", "--out", submission)
    return run_digests(run, submission)


def timm_backbone(folder: Path, data: Path) -> Digests:
    """A network of timm's with dropout, rates by layer, and a precision that autocast changes."""
    changes = {
        "model": {"backbone": "resnet10t", "weights": "none", "dropout": 0.2},
        "optimizer": {"layer_decay": 0.7, "backbone_lr_factor": 0.5, "name": "sgd", "momentum": 0.9},
        "training": {"precision": "bf16", "clip_norm": 1.0, "batch_size": 12},
    }
    return plain(["colour"], changes)(folder, data)


def all_runs() -> dict[str, Callable[[Path, Path], Digests]]:
    """Every run by its name."""
    one = ["colour"]
    runs: dict[str, Callable[[Path, Path], Digests]] = {
        "demo clothes": clothes,
        "demo faces": faces,
        "demo shapes": plain(
            list(TARGETS), {"training": {"target_weights": "uncertainty", "clip_norm": 5.0}}
        ),
    }
    for name, keys in CLASS_LOSSES.items():
        runs[f"loss {name}"] = plain(one, {"loss": {"name": name, **keys}})
    for target, losses in OTHER_LOSSES.items():
        for name, keys in losses.items():
            runs[f"loss {name}"] = plain([target], {"loss": {"name": name, **keys}})
    terms = [{"name": "focal", "weight": 0.5}, {"name": "cross_entropy", "class_weights": "inverse"}]
    runs["loss sum"] = plain(one, {"loss": {"name": "sum", "terms": terms}})
    # 90 rows in batches of 16 and updates of three batches: the last update is short, and so is its last batch.
    short = {"training": {"accumulate": 3}, "loss": {"name": "cross_entropy", "class_weights": "inverse"}}
    mixing = {"data": {"mixup": 0.4, "cutmix": 1.0, "mix_share": 0.8}, "training": {"accumulate": 2}}
    freeze = {"training": {"epochs": 3, "freeze_epochs": 1}}
    plateau = {"schedule": {"name": "plateau", "patience": 0, "warmup_epochs": 1}, "training": {"epochs": 3}}
    runs |= {
        "accumulation, short last update": plain(one, short),
        "accumulation, several targets": plain(
            ["colour", "size", "area", "tags"], {"training": {"accumulate": 3}}
        ),
        "accumulation, whole queries": plain(["match"], {"training": {"accumulate": 2}}),
        "micro-batches of parts": plain(["colour", "size"], {"training": {"micro_batch": 5}}),
        "mixing": plain(one, mixing),
        "averaged weights": plain(one, {"training": {"ema": 0.8}, "selection": {"patience": 1}}),
        "frozen, then not": plain(one, freeze),
        "plateau with warmup": plain(one, plateau),
        "onecycle and AdamP": plain(one, {"schedule": {"name": "onecycle"}, "optimizer": {"name": "adamp"}}),
        "balanced sampling": plain(one, {"data": {"sampling": "balanced"}}),
        "strong augmentation": plain(one, {"data": {"augment": {"preset": "strong"}, "sampling": "sqrt"}}),
        "timm backbone": timm_backbone,
        "two processes": two_processes,
        "resumed in mid-epoch": resumed,
    }
    return runs


def write_data(folder: Path) -> None:
    """The three drawn or bundled data sets."""
    from classwise.demo.competition import write_competition
    from classwise.demo.fashion import write_fashion
    from classwise.demo.shapes import write_shapes

    for name in ("clothes", "faces", "shapes"):
        (folder / name).mkdir()
    write_fashion(folder / "clothes")
    write_competition(folder / "faces", 24)
    write_shapes(folder / "shapes", SHAPES_ROWS)


def compare(found: dict[str, Digests], expected: dict[str, Digests]) -> int:
    """Print what differs; returns how many digests do."""
    differing = 0
    for name, digests in found.items():
        for kind, digest in digests.items():
            wanted = expected.get(name, {}).get(kind)
            if digest != wanted:
                differing += 1
                print(f"DIFFERS: {name}, {kind}: {digest}, was {wanted}")
    count = sum(map(len, found.values()))
    print(f"{count - differing} of {count} digests as before")
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    runs = all_runs()
    found: dict[str, Digests] = {}
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / "data"
        data.mkdir()
        write_data(data)
        print(f"| {'run':<32}| weights          | history          | metrics          | predictions      |")
        print(f"|{'-' * 33}|{('-' * 18 + '|') * 4}")
        for number, name in enumerate(options.only or runs):
            folder = Path(work) / f"run-{number}"
            folder.mkdir()
            found[name] = runs[name](folder, data)
            print(f"| {name:<32}| {' | '.join(found[name].values())} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return bool(options.against and compare(found, json.loads(options.against.read_text())))


if __name__ == "__main__":
    sys.exit(main())

"""What each epoch of a real run predicts for thousands of rows that the run has never seen.

A validation set is then a draw from these rows (with replacement), and an epoch's score on all of them is its score on
fresh rows, exactly: any number of validation sets can be drawn for one training.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import polars as pl
import torch

from classwise.compose.dataset import prepare
from classwise.compose.settings import device_of
from classwise.config.load import absolute_paths, make_config
from classwise.console import Console
from classwise.run.assembly import assemble, new_model
from classwise.run.predictor import preserve_torch_state
from classwise.distributed import SINGLE_PROCESS
from classwise.training import loop
from make_fashion import SOURCE, read_idx

POOL_ROWS = 300  # of each class
VALID_ROWS = 100  # of the run itself, which this measurement does not use
DECAY = 0.99


@dataclass(frozen=True)
class Recording:
    """A run's epochs on the pool: true classes (N,), the weight of each row so that classes have their natural shares
    (N,), and by the weights that predicted (`last` or `average`) the predicted classes and -log p(true), (E, N)."""

    name: str
    true_N: np.ndarray
    weight_N: np.ndarray
    predicted: dict[str, np.ndarray]
    loss: dict[str, np.ndarray]


def record(name: str, counts: list[int], seed: int, epochs: int, **sections: Any) -> Recording:
    """Train a small network on `counts[k]` clothes of each class and record its epochs. `sections`: of the config."""
    rng = np.random.default_rng([seed, 1])
    images_NHW = read_idx(SOURCE / "train-images-idx3-ubyte.gz")
    labels_N = read_idx(SOURCE / "train-labels-idx1-ubyte.gz")
    rows = {k: rng.permutation(np.flatnonzero(labels_N == k)) for k in range(len(counts))}
    shares_K = np.array(counts) / sum(counts)
    valid_counts = np.maximum(1, np.rint(VALID_ROWS * shares_K)).astype(int)
    pool_rows = np.concatenate([rows[k][-POOL_ROWS:] for k in rows])

    with tempfile.TemporaryDirectory() as folder, preserve_torch_state():
        for table, start, size in (
            ("train", np.zeros(10, dtype=int), counts),
            ("valid", np.array(counts), valid_counts),
        ):
            chosen = np.concatenate([rows[k][start[k] : start[k] + size[k]] for k in rows])
            _write(Path(folder), table, images_NHW, labels_N, rng.permutation(chosen))
        config = absolute_paths(
            make_config(
                {
                    "seed": seed,
                    "data": {
                        "source": "train.csv",
                        "valid": "valid.csv",
                        "augment": "light",
                        "cache": "off",
                        "workers": 0,
                    },
                    "targets": {"label": {"column": "label"}},
                    "model": {"image_size": [28, 28]},
                    "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.05},
                    "schedule": {"name": "cosine", "warmup_epochs": 0.5},
                    **sections,
                    "training": {
                        "epochs": epochs,
                        "clip_norm": 1.0,
                        "ema": DECAY,
                        "precision": "fp32",
                        "threads": 1,
                        "device": "cpu",
                        "compile": False,
                        "memory_format": "channels_last",
                    },
                }
            ),
            Path(folder),
        )
        torch.set_num_threads(1)
        splits = prepare(config, Console(quiet=True), use_cache=False)
        heads, model = new_model(config, splits, SINGLE_PROCESS)
        parts = assemble(config, splits, model, heads=heads, device=device_of("cpu"))

        # The classes' names are digits, so that a class's number is its label.
        pool = torch.from_numpy(images_NHW[pool_rows]).unsqueeze(1).expand(-1, 3, -1, -1)
        true_N = labels_N[pool_rows].astype(np.int64)
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"last": [], "average": []}

        def keep(row: dict[str, Any], best: bool) -> None:
            for weights, model in (("last", parts.state.model), ("average", parts.state.average.model)):
                found[weights].append(_outputs(model, pool, true_N))

        loop.train(
            parts.state,
            parts.data,
            parts.valid,
            parts.metrics,
            parts.settings,
            loop.NULL_CHECKPOINTER,
            report=keep,
        )
    return Recording(
        name,
        true_N,
        weight_N=shares_K[true_N] / POOL_ROWS,
        predicted={key: np.stack([predicted for predicted, _ in pairs]) for key, pairs in found.items()},
        loss={key: np.stack([loss for _, loss in pairs]) for key, pairs in found.items()},
    )


@torch.no_grad()
def _outputs(
    model: torch.nn.Module, pool_NCHW: torch.Tensor, true_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted classes, and -log p of the true ones."""
    model.eval()
    log_p = [model(batch.contiguous())["label"].log_softmax(dim=1) for batch in pool_NCHW.split(500)]
    log_p_NK = torch.cat(log_p).numpy()
    return log_p_NK.argmax(axis=1).astype(np.uint8), -log_p_NK[np.arange(len(true_N)), true_N]


def _write(folder: Path, table: str, images_NHW: np.ndarray, labels_N: np.ndarray, rows: np.ndarray) -> None:
    (folder / table).mkdir()
    names = []
    for row in rows:
        names.append(f"{table}/{row}.png")
        (folder / names[-1]).write_bytes(cv2.imencode(".png", images_NHW[row])[1].tobytes())
    pl.DataFrame({"path": names, "label": [str(k) for k in labels_N[rows]]}).write_csv(
        folder / f"{table}.csv"
    )


def save(recording: Recording, path: Path) -> None:
    arrays = {
        f"{kind}_{key}": array
        for kind in ("predicted", "loss")
        for key, array in getattr(recording, kind).items()
    }
    np.savez_compressed(path, name=recording.name, true=recording.true_N, weight=recording.weight_N, **arrays)


def load(path: Path) -> Recording:
    with np.load(path) as file:
        return Recording(
            str(file["name"]),
            file["true"],
            file["weight"],
            {key: file[f"predicted_{key}"] for key in ("last", "average")},
            {key: file[f"loss_{key}"] for key in ("last", "average")},
        )

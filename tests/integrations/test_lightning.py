"""classwise.integrations.lightning: the same run in Lightning's Trainer, to the bit."""

import contextlib
import copy
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import classwise
from classwise.demo.shapes import SHAPES, write_shapes
from classwise.errors import ConfigError, NonFiniteError
from classwise.training import loop
from tests.helpers.peers import needs
from twin.runs import (
    RUNS,
    bundled,
    config_of,
    equal_bits,
    new_parts,
    options_of,
    quiet_trainer,
    run_classwise,
    run_lightning,
    write_rows,
)
from twin.updates import Case, gradients_of_micro_batches, of_lightning, options_for, relative_difference

ROOT = Path(__file__).parents[2]
lightning = needs("pytorch_lightning", extra="lightning")
pytestmark = [lightning, pytest.mark.filterwarnings("ignore:::pytorch_lightning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled images."""
    return bundled(tmp_path_factory.mktemp("bundled"))


def small(folder: Path, **changes: str) -> dict[str, str]:
    """by-hand.toml on 208 rows: seven batches, so that the second of an epoch's two updates is short."""
    rows = {
        "data.source": str(write_rows(folder, "train", 208)),
        "data.valid": str(write_rows(folder, "test", 100)),
    }
    return options_of(folder, **rows) | changes


@pytest.mark.parametrize("name", list(RUNS)[-2:])
def test_a_run_in_lightning_ends_with_the_same_bits(name: str, folder: Path) -> None:
    """Class weights, a short last update, augmentation, dropout, clipping, EMA; mixup, bf16, plateau: the weights are
    those of classwise's loop, and so is the score."""
    options = small(folder, **RUNS[name])
    ours, theirs = run_classwise(options), run_lightning(options, exact=True)
    assert equal_bits(ours, theirs)
    assert theirs.macro_f1 == pytest.approx(ours.macro_f1, abs=1e-7)


def test_without_exact_the_gradient_is_what_lightning_divides(folder: Path) -> None:
    """Three micro-batches of up to four: the sum of their means, divided by four, which is off by a fifth and more."""
    options = options_for(Case(80), folder)
    found, (own, by_rows) = of_lightning(options, exact=False), gradients_of_micro_batches(options)
    assert relative_difference(found, sum(own) / 4) < 1e-5
    assert relative_difference(found, by_rows) > 0.2
    assert relative_difference(of_lightning(options, exact=True), by_rows) < 1e-5


def test_what_is_logged_is_what_the_history_says(folder: Path) -> None:
    """`train_loss`, `lr` and the scores have the values of history.jsonl."""
    from classwise.integrations.lightning import from_config

    options = small(folder, **{"training.epochs": "1"})
    with new_parts(options) as parts:
        loop.train(
            parts.state, parts.data, parts.valid, parts.metrics, parts.settings, loop.NULL_CHECKPOINTER
        )
        (row,) = parts.state.progress.history
    module, data = from_config(config_of(options))
    trainer = quiet_trainer(**module.trainer_options())
    trainer.fit(module, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    wanted = {"train_loss": row["train_loss"], "lr": row["lr"]}
    wanted |= {f"valid_{name}": value for name, value in row["valid"].items()}
    assert logged == pytest.approx(wanted, rel=1e-6)
    assert module.monitor == {"monitor": "valid_macro_f1", "mode": "max"}


def test_lightning_resumes_to_the_same_bits(folder: Path, tmp_path: Path) -> None:
    """From Lightning's checkpoint of the first epoch: average of the weights and plateau go on as they were."""
    from classwise.integrations.lightning import from_config

    changes = {"training.ema": "0.9", "schedule.name": "plateau", "schedule.patience": "0"}
    options = small(folder, **changes)

    def trained(epochs: int, start: Path | None = None) -> tuple[dict[str, torch.Tensor], object]:
        module, data = from_config(config_of(options))
        trainer = quiet_trainer(**module.trainer_options() | {"max_epochs": epochs})
        trainer.fit(module, data, ckpt_path=start)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return module.parts.state.average.model.state_dict(), module.parts.state.schedule.plateau

    whole, plateau = trained(2)
    trained(1)
    resumed, plateau_resumed = trained(2, tmp_path / "1.ckpt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert plateau == plateau_resumed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.plan": "probe_then_finetune"}, "training.plan: found 'probe_then_finetune'.*finetune"),
        ({"training.precision": "fp16"}, "training.precision: found 'fp16'.*fp32, bf16"),
        (
            {"inference.tta": "flip", "data.augment.flip": "0.5"},
            "inference.tta: found 'flip'.*allowed in Lightning: none",
        ),
    ],
)
def test_what_lightning_would_ignore_is_refused(changes: dict[str, str], message: str, folder: Path) -> None:
    """A key that Lightning's loop cannot follow names itself and what is allowed."""
    from classwise.integrations.lightning import from_config

    with pytest.raises(ConfigError, match=message):
        from_config(config_of(small(folder, **changes)))


def test_the_guides_example_takes_a_config_of_two_stages(folder: Path, tmp_path: Path) -> None:
    """What `init` writes for pretrained weights is such a config."""
    from classwise.integrations.lightning import LitClassifier, from_config

    page = (ROOT / "docs" / "guide" / "lightning.md").read_text(encoding="utf-8")
    call = re.search(r"^module, data = (from_config\(.*\))$", page, re.MULTILINE)
    assert call is not None
    config = config_of(small(folder, **{"training.plan": "probe_then_finetune"}))
    (tmp_path / "classwise.toml").write_text(config.to_toml(), encoding="utf-8")
    with contextlib.chdir(tmp_path):
        module, _ = eval(call[1], {"from_config": from_config})
    assert isinstance(module, LitClassifier)


def test_several_processes_are_refused(folder: Path) -> None:
    """Lightning averages gradients over processes: the message says how to train with several."""
    from classwise.integrations.lightning import from_config

    _, data = from_config(config_of(small(folder)))
    data.trainer = SimpleNamespace(world_size=2)
    with pytest.raises(ConfigError, match=r"found 2 processes; allowed.*: 1, .*torchrun"):
        data.setup("fit")


def test_lightning_steps_where_classwise_stops(folder: Path) -> None:
    """A gradient that is not finite: classwise names the update, Lightning's loop goes on to the validation."""
    options = small(folder, **{"optimizer.name": "sgd", "optimizer.lr": "1e30"})
    with pytest.raises(NonFiniteError, match=r"^update 2: .*Samples: images/train/"):
        run_classwise(options)
    with pytest.raises(NonFiniteError, match=r"^validation: "):
        run_lightning(options, exact=True)


@pytest.mark.full
def test_the_example_compares_both() -> None:
    """examples/lightning_twin.py trains the run three times, and prints what is equal."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "lightning_twin.py"), "--training.epochs", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    scores = re.findall(r"macro F1 (\d\.\d+)", done.stdout)
    assert len(scores) == 3
    assert scores[0] == scores[1]
    differences = [
        float(found) for found in re.findall(r"difference of a weight (\S+)$", done.stdout, re.MULTILINE)
    ]
    assert differences[0] == 0
    assert differences[1] > 0


@pytest.mark.full
@pytest.mark.parametrize("changes", [{}, {"freeze_epochs": 1}], ids=["fine-tuned", "frozen first"])
def test_targets_of_all_types_end_with_the_same_bits(changes: dict[str, int], tmp_path: Path) -> None:
    """Class, ordinal, multilabel, regression and ranking, with learned weights between them."""
    from classwise.integrations.lightning import from_config

    write_shapes(tmp_path)
    values = copy.deepcopy(SHAPES) | {"schedule": {"name": "cosine"}}
    values["data"] |= {"source": str(tmp_path / "samples.csv"), "images": str(tmp_path), "workers": 0}
    values["selection"] = {"first_epoch": 1}
    training = {"epochs": 2, "precision": "fp32", "threads": 1, "target_weights": "uncertainty"}
    values |= {"training": training | changes, "report": {"baselines": False, "resamples": 0}}
    config = classwise.make_config(values)
    run = classwise.train(config, tmp_path / "run", quiet=True)
    theirs = load_file(run.path / "checkpoints" / "last" / "model.safetensors")

    module, data = from_config(config)
    quiet_trainer(**module.trainer_options()).fit(module, data)
    ours = module.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

"""What docs/results/lightning.md says of Lightning, torchmetrics and the Hugging Face Trainer."""

import tomllib
from pathlib import Path

import pytest

from tests.helpers.peers import needs
from twin.runs import bundled, write_rows

ROOT = Path(__file__).parents[2]
lightning = needs("pytorch_lightning", extra="lightning")
hf = needs("transformers", "accelerate", extra="peers")
peers_warn = pytest.mark.filterwarnings("ignore")  # the peers' own, on importing and on small loaders


@hf
@peers_warn
@pytest.mark.parametrize(
    ("model", "full", "short"),
    [
        ("ViT", "by rows: exact", "by rows: exact"),
        ("ConvNeXt", "by rows: exact", "mean of means"),
        ("ResNet", "sum of means: off by 300.0 %, x 4.00", "sum of means"),
    ],
)
def test_the_hugging_face_trainer_accumulates_in_three_ways(model: str, full: str, short: str) -> None:
    """By rows, as a mean of means, and as a sum of means: it depends on the model."""
    from twin.hf import gradient_text, one_update

    assert gradient_text(one_update(model, 128)) == full
    found = one_update(model, 80)
    assert gradient_text(found).startswith(short)
    assert (found.loss == pytest.approx(found.loss_by_rows, rel=1e-5)) == (model == "ViT")


@lightning
@peers_warn
def test_a_mean_of_batches_and_absent_classes(tmp_path: Path) -> None:
    """classwise's macro F1 is scikit-learn's over all labels; the mean of batch values is another number, and so is
    torchmetrics' where a class has neither rows nor predictions."""
    from twin.scores import macro_f1, without_rare_classes

    folder = bundled(tmp_path)
    options = without_rare_classes(folder) | {"data.source": str(write_rows(folder, "train", 208))}
    found = macro_f1(options)
    assert found.classwise == pytest.approx(found.sklearn, abs=1e-6)
    assert abs(found.mean_of_batches - found.classwise) > 0.005
    assert found.torchmetrics > 1.05 * found.classwise


@lightning
@pytest.mark.full
def test_lightnings_sampler_pads_the_validation() -> None:
    """101 rows in two processes are 102: the first one is counted twice."""
    from twin.scores import padded_rows

    found = padded_rows(101)
    assert found["counted"] == 102
    assert found["hits"] == pytest.approx(2 / 102, rel=0.05)


def test_the_page_is_of_the_pinned_version() -> None:
    """docs/results/lightning.md was measured with the version that the extra installs."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (pinned,) = extras["lightning"]
    version = pinned.replace("==", " ")
    assert version in (ROOT / "docs" / "results" / "lightning.md").read_text(encoding="utf-8")

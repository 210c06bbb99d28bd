"""`classwise.load`: the trained model of a run, of folds, or of a repository on the Hugging Face hub."""

from pathlib import Path

from classwise.infer.module import TrainedModel
from classwise.kfold.api import open_run
from classwise.run.own_code import Trust


def load(
    run: str | Path, trust: Trust = (), tta: str | None = None, ensemble: str | None = None
) -> TrainedModel:
    """The model of a run or of folds, by its folder or by `hf://owner/name[@revision]`, as a plain
    `nn.Module` in eval mode, on the CPU:

        model = classwise.load("runs/masks")
        images = torch.stack([model.transform(path) for path in paths])
        model(images)["mask"]                    # logits, for a loss
        model.probabilities(images)["mask"]      # what `predict` writes
        model.labels["mask"]                     # their names

    `trust`, `tta`: as of `Run.open`; `ensemble`: as of `Folds.open`. Raises CheckpointError if there is neither, or a
    damaged one, TrustError for code that is not trusted, ModelError for a repository that cannot be had.
    """
    if str(run).startswith("hf://"):
        # The hub's client takes time to import, and a run on disk can do without it.
        from classwise.integrations.hub import download

        run = download(str(run))
    return open_run(run, trust, tta, ensemble).model()

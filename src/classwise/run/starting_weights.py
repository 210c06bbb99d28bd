"""A run's folder as model.weights: its best checkpoint, verified, as the beginning of another run."""

from pathlib import Path

from classwise.config.schema import Config
from classwise.data.targets import target_from_dict
from classwise.errors import CheckpointError, ModelError
from classwise.model.classifier import ModelMetadata
from classwise.model.heads import head_from_dict
from classwise.model.starting_weights import StartingWeights
from classwise.run.checkpoint import read_checkpoint, reading


def starting_weights(config: Config) -> StartingWeights | None:
    """What the run that model.weights names has learned; None where it names none. Raises ModelError."""
    if not config.model.starts_from_run:
        return None
    folder = Path(config.model.weights)
    try:
        # A checkpoint's own folder will do as well.
        own = folder if (folder / "manifest.json").is_file() else folder / "checkpoints" / "best"
        if not own.is_dir():
            raise CheckpointError(f"there is no {own}")
        checkpoint = read_checkpoint(own)
        with reading(checkpoint):
            targets = [target_from_dict(target) for target in checkpoint.metadata["targets"]]
            start = StartingWeights(
                where=str(folder),
                metadata=ModelMetadata.from_dict(checkpoint.metadata["model"]),
                tensors=checkpoint.model,
                heads={name: head_from_dict(values) for name, values in checkpoint.metadata["heads"].items()},
                labels={target.name: tuple(target.labels) for target in targets if target.labels},
            )
            for number, name in enumerate(start.metadata.heads):
                if start.tensors[f"heads.{number}.weight"].shape[0] != start.metadata.heads[name]:
                    raise ValueError(f"the head of {name!r} has another number of outputs")
    except CheckpointError as error:
        raise ModelError(
            f"model.weights: {folder} is not a run whose weights can be used: {error}; allowed: a run's folder, a"
            " .safetensors file, none, pretrained"
        ) from None
    start.require_backbone(config.model.backbone)
    return start

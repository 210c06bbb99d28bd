"""The run of examples/by-hand.toml by classwise and in PyTorch Lightning, compared.

    pip install ".[lightning]"
    python examples/lightning_twin.py [--training.accumulate 1 ...]

Every key of the config is an option. Three times the same run: by `classwise train`; in Lightning, with the loss that
makes its accumulation exact; and with the plain loss, which Lightning divides by `accumulate_grad_batches`.
"""

import sys
import tempfile
from pathlib import Path

import pytorch_lightning as pl
from safetensors.torch import load_file

import classwise
from classwise.demo.fashion import write_fashion
from classwise.integrations.lightning import from_config

CONFIG = Path(__file__).with_name("by-hand.toml")


def main() -> None:
    words = iter(sys.argv[1:])
    given = [(key.removeprefix("--"), value) for key, value in zip(words, words, strict=True)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_fashion(folder)
        places = {"source": folder / "train.csv", "images": folder, "valid": folder / "test.csv"}
        keys = [*((f"data.{key}", str(path)) for key, path in places.items()), *given]

        run = classwise.train(CONFIG, folder / "run", keys)
        weights = load_file(run.path / "checkpoints" / "last" / "model.safetensors")
        print(f"classwise: macro F1 {run.history[-1]['valid']['macro_f1']:.6f}")

        for exact in (True, False):
            module, data = from_config(CONFIG, keys, exact=exact)
            quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            trainer = pl.Trainer(**module.trainer_options(), **quiet, enable_model_summary=False)
            trainer.fit(module, data)
            ours = module.parts.state.average.model.state_dict()
            difference = max(float((ours[name] - weights[name]).abs().max()) for name in weights)
            score = float(trainer.callback_metrics["valid_macro_f1"])
            print(
                f"Lightning, exact={exact}: macro F1 {score:.6f}, largest difference of a weight {difference:g}"
            )


if __name__ == "__main__":
    main()

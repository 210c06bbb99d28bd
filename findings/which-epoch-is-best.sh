#!/usr/bin/env bash
# Three trainers guess from the name of a metric, or do not ask, whether higher is better: each keeps the worst epoch for some.
#
# One would guess that a trainer that keeps the best epoch knows MAE from F1, or refuses a metric without a direction. What
# happens: Lightning's ModelCheckpoint takes the smallest value of any metric (F1 too), the Hugging Face Trainer the largest of
# any metric whose name does not end in 'loss' (MAE and error rate too), and fastai's SaveModelCallback the largest unless the
# name contains 'loss' or 'error' (MAE and Brier score too). Nothing is said in either case.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.12.1 pytorch-lightning==2.6.6 transformers==5.24.0 accelerate fastai==2.8.12 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import os

os.environ["HF_HUB_OFFLINE"] = "1"
import fastai
import pytorch_lightning
import transformers
from fastai.callback.tracker import SaveModelCallback
from pytorch_lightning.callbacks import ModelCheckpoint


def lightning(metric):
    return ModelCheckpoint("lightning", monitor=metric).mode == "max"


def hugging_face(metric):
    arguments = transformers.TrainingArguments(
        "hf",
        metric_for_best_model=metric,
        load_best_model_at_end=True,
        eval_strategy="epoch",
        save_strategy="epoch",
        report_to=[],
        use_cpu=True,
    )
    return arguments.greater_is_better


def by_fastai(metric):
    return SaveModelCallback(monitor=metric).comp(1, 0)


print("pytorch-lightning", pytorch_lightning.__version__)
print("transformers", transformers.__version__)
print("fastai", fastai.__version__)
found = {}
for name, higher_is_better in (("lightning", lightning), ("hugging face", hugging_face), ("fastai", by_fastai)):
    found[name] = {metric: bool(higher_is_better(metric)) for metric in ("f1", "mae", "error_rate")}
    print(f"{name}: higher is better: {found[name]}")
assert found["lightning"]["f1"] is False
assert found["hugging face"]["mae"] is True
assert found["hugging face"]["error_rate"] is True
assert found["fastai"]["mae"] is True
assert found["fastai"]["error_rate"] is False
PY

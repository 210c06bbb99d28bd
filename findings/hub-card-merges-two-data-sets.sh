#!/usr/bin/env bash
# huggingface_hub: a model card's scores on two data sets are written as scores on the first one, if their types are the same.
#
# One would guess that results with different dataset_name are two entries of the model index. What happens: results are grouped by
# task type and the data set's type, config, split and revision. dataset_name is not among them, nor is task_name, so the second score
# is listed under the first one's name, and reading the card back says that the first data set has two different scores. Two data
# sets of one's own, which have no type on the hub, are such a pair.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check huggingface_hub==2.4.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import huggingface_hub
from huggingface_hub import EvalResult, ModelCardData

print("huggingface_hub", huggingface_hub.__version__)


def written_and_read(**second):
    scores = [("clean photos", 0.95, {}), ("night photos", 0.40, second)]
    results = [
        EvalResult("image-classification", dataset_type=more.get("dataset_type", "private"), dataset_name=name,
                   metric_type="f1", metric_value=value)
        for name, value, more in scores
    ]
    card = ModelCardData(model_name="model", eval_results=results)
    read = [
        (entry["dataset"]["name"], metric["value"])
        for entry in card.to_dict()["model-index"][0]["results"]
        for metric in entry["metrics"]
    ]
    print(read)
    return read


assert written_and_read() == [("clean photos", 0.95), ("clean photos", 0.40)]
assert written_and_read(dataset_type="private-2") == [("clean photos", 0.95), ("night photos", 0.40)]
PY

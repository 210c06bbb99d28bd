#!/usr/bin/env bash
# Hugging Face datasets: a validation part taken off a shuffled stream is trained on from the second epoch.
#
# One would guess that after rows = stream.shuffle(seed), rows.take(100) and rows.skip(100) are two parts of the data for good,
# since the seed is fixed, and that set_epoch gives the training part another order. What happens: set_epoch shuffles *below*
# take and skip, so that they cut elsewhere. In the first epoch the parts are disjoint, which is when one checks. After
# set_epoch(1), which trainers call by themselves, a third of the validation rows are among those that are trained on. To call
# it on both parts only hides this: the rows to validate on now were trained on in the epoch before. A part that is taken off
# before the shuffle stays what it is.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check datasets==5.2.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import datasets

print("datasets", datasets.__version__)
stream = datasets.Dataset.from_dict({"row": list(range(1000))}).to_iterable_dataset(num_shards=4)


def numbers(part):
    return {row["row"] for row in part}


shuffled = stream.shuffle(seed=0, buffer_size=100)
first, rest = stream.take(100), stream.skip(100).shuffle(seed=0, buffer_size=100)
for name, validation, training in (
    ("shuffled, then cut", shuffled.take(100), shuffled.skip(100)),
    ("cut, then shuffled", first, rest),
):
    held_out = numbers(validation)
    shared = []
    seen = set()
    for epoch in range(3):
        training.set_epoch(epoch)
        trained = numbers(training)
        assert len(held_out) == 100 and len(trained) == 900
        seen |= trained
        shared.append(len(held_out & trained))
    print(f"{name}: of 100 validation rows, {shared} are trained on in epochs 0 to 2, {len(held_out & seen)} in all")
    if validation is first:
        assert shared == [0, 0, 0]
    else:
        assert shared[0] == 0 and min(shared[1:]) > 10

# Both parts told the epoch: disjoint in each, but not over the run.
validation, training = shuffled.take(100), shuffled.skip(100)
training.set_epoch(0)
before = numbers(training)
validation.set_epoch(1), training.set_epoch(1)
held_out = numbers(validation)
now = numbers(training)
print(f"set_epoch(1) on both: {len(held_out & now)} shared now, {len(held_out & before)} with the epoch before")
assert not held_out & now and len(held_out & before) > 10
PY

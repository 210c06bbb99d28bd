#!/usr/bin/env bash
# litdata's train_test_split gives whole chunks to a part: a test part of sorted data lacks most classes.
#
# One would guess that rows are drawn at random, since it takes a seed. What happens: chunks are drawn. Data written class by
# class, as a walk over class folders writes it, gives a test part with two of five classes, and neighbouring frames of one video
# stay together or not by the accident of the chunk size. The sizes are exact and nothing is said.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 litdata==0.2.76 numpy

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import collections
import contextlib
import io
import subprocess
import sys
from pathlib import Path

import litdata

Path("write.py").write_text('''
from litdata import optimize


def sample(row):
    return {"label": row // 100, "row": row}


if __name__ == "__main__":
    optimize(fn=sample, inputs=list(range(500)), output_dir="data", chunk_size=50, num_workers=1)
''')
subprocess.run([sys.executable, "-W", "ignore", "write.py"], check=True, capture_output=True)
print("litdata", litdata.__version__)
with contextlib.redirect_stdout(io.StringIO()):
    train, test = litdata.train_test_split(litdata.StreamingDataset("data"), splits=[0.8, 0.2], seed=42)
    counts = [collections.Counter(int(row["label"]) for row in part) for part in (train, test)]
print("500 rows, 100 of each of five classes")
for name, count in zip(("train", "test"), counts):
    print(f"{name}: {sum(count.values())} rows, by class {dict(sorted(count.items()))}")
assert [sum(count.values()) for count in counts] == [400, 100]
assert len(counts[1]) == 2 and set(counts[1].values()) == {50}
PY

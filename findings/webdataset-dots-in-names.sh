#!/usr/bin/env bash
# webdataset ends the name of a sample at its first dot: scan.v1.jpg and scan.v2.jpg are one sample.
#
# One would guess that the suffix is what follows the last dot, as for a file on disk. What happens: the key is `scan`, the
# extension `v1.jpg`, and neighbouring files of the same key form one sample, with the fields v1.jpg, v2.jpg: two labeled images
# have become one without an image or a label. Dates, versions and decimal numbers in file names (0.5x.png) do this.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check webdataset==1.0.2 numpy pillow==13.0.0

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import io
import tarfile
from importlib.metadata import version

import webdataset
from PIL import Image

print("webdataset", version("webdataset"))
file = io.BytesIO()
Image.new("RGB", (8, 8)).save(file, "JPEG")
with tarfile.open("shard.tar", "w") as shard:
    for name in ("scan.v1", "scan.v2", "other"):
        for suffix, content in (("jpg", file.getvalue()), ("cls", b"3")):
            member = tarfile.TarInfo(f"{name}.{suffix}")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
samples = {}
for sample in webdataset.WebDataset("shard.tar", shardshuffle=False):
    samples[sample["__key__"]] = sorted(field for field in sample if not field.startswith("__"))
print("three images with labels give:", samples)
assert samples == {"scan": ["v1.cls", "v1.jpg", "v2.cls", "v2.jpg"], "other": ["cls", "jpg"]}, samples
PY

#!/usr/bin/env bash
# TensorBoard: SummaryWriter(purge_step=...) does not purge, with either of TensorBoard's two loaders.
#
# PyTorch's documentation says that after a crash at step 9 and a restart with purge_step=5 "any events whose global_step larger
# or equal to purge_step will be purged and hidden from TensorBoard". One would guess that the page shows one curve: steps 1 to 4
# of the first run, then what the restarted one writes. What happens: the default loader, written in Rust, knows no such event. It
# drops old points only from the first step on that the restarted run writes again, so steps 5 and 6 of the crashed run stay in
# the curve. The loader in Python (--load_fast=false) takes the first such event of a run for its start and ignores it, so all
# points of the crashed run stay, and the curve goes back and forth. Whoever wants one curve has to rewrite the event files.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.15.0 tensorboard==2.21.0 numpy setuptools

cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import json
import socket
import subprocess
import sys
import time
import urllib.request

import tensorboard
import torch
from torch.utils.tensorboard import SummaryWriter

print("tensorboard", tensorboard.__version__, "torch", torch.__version__)
with SummaryWriter("logs/run") as writer:
    for step in range(1, 10):
        writer.add_scalar("loss", 1.0, step)
time.sleep(1.5)  # files are read in the order of the second in their names
with SummaryWriter("logs/run", purge_step=5) as writer:
    for step in (7, 8):
        writer.add_scalar("loss", 2.0, step)


def shown(loader):
    """Step and value of every point that the page asks for."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "tensorboard.main", "--logdir", "logs", "--port", str(port)]
    server = subprocess.Popen([*command, f"--load_fast={loader}"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            time.sleep(0.5)
            try:
                url = f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=run&tag=loss"
                points = json.load(urllib.request.urlopen(url))
            except OSError:
                continue
            if points and points[-1][2] == 2.0:
                return [(step, value) for _, step, value in points]
        raise SystemExit("the server showed nothing")
    finally:
        server.terminate()
        server.wait()


wanted = [(step, 1.0) for step in (1, 2, 3, 4)] + [(7, 2.0), (8, 2.0)]
print("one curve would be  ", wanted)
fast, slow = shown("true"), shown("false")
print("--load_fast=true    ", fast)
print("--load_fast=false   ", slow)
assert fast == [(step, 1.0) for step in (1, 2, 3, 4, 5, 6)] + [(7, 2.0), (8, 2.0)], fast
assert slow == [(step, 1.0) for step in range(1, 10)] + [(7, 2.0), (8, 2.0)], slow
PY

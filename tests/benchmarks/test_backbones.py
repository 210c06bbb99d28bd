"""A tenth of timm's modules, tried as benchmarks/backbones.py tries all: built, trained, killed and resumed to the same
bytes, used and exported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backbones import STEPS, VARIANTS

ROOT = Path(__file__).parents[2]
TENTH = VARIANTS[9::10]


@pytest.mark.full
@pytest.mark.parametrize("name", TENTH)
def test_a_backbone_does_all_of_it(name: str) -> None:
    """Built at 96 x 128 and at its own size; everything else at the first."""
    command = [sys.executable, str(ROOT / "benchmarks/backbones.py"), name, "--one"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    failed = {step: found.get(step) for step in STEPS if found.get(step) != "ok"}
    assert not failed

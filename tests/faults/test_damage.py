"""Every damage to a checkpoint is noticed; without the manifest most would not be."""

from typing import Any

import pytest

from classwise.errors import CheckpointError
from classwise.run import checkpoint as checkpoints
from tests.faults import damage
from tests.faults.states import files_of, put


def test_damages_are_noticed() -> None:
    """400 of every kind, a tenth of them to both checkpoints."""
    count = damage.damages(400)
    count.check()
    assert set(count.by) == set(damage.DAMAGES)


@pytest.mark.full
def test_sabotage_without_the_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit of the weights is then loaded as if nothing were."""
    manifest = checkpoints._read_manifest

    def trusting(folder: Any) -> dict[str, Any]:
        found = manifest(folder)
        there = [name for name in checkpoints.FILES if (folder / name).is_file()]
        sizes = {name: (folder / name).read_bytes() for name in there}
        found["files"] = {
            name: {"size": len(data), "sha256": checkpoints.sha256(data)} for name, data in sizes.items()
        }
        return found

    monkeypatch.setattr(checkpoints, "_read_manifest", trusting)
    count = damage.damages(200)
    assert count.held < count.tried
    assert any("not noticed" in failure for failure in count.failures)


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.full)])
def test_every_byte_of_the_manifest_counts(tmp_path: Any, step: int) -> None:
    """Flip one bit of each byte in turn, white space among them; in full each bit."""
    folder = put(tmp_path, "last", files_of(1))
    path = folder / "manifest.json"
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), step):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError):
            checkpoints.read_checkpoint(folder)

"""What happens to the folder of a run that is to be trained."""

from pathlib import Path

from classwise.config.load import make_config
from classwise.run.lock import locked
from classwise.run.unattended import train_or_resume


def test_a_run_that_another_process_has_begun_is_left_as_it_is(tmp_path: Path) -> None:
    """It has no status.json yet, as a folder of a run that never began; but it is locked."""
    config = make_config({"data": {"source": "samples.csv"}, "targets": {"label": {"column": "label"}}})
    folder = tmp_path / "seed-1"
    folder.mkdir()
    (folder / "log.txt").write_text("precious")
    with locked(folder):
        outcome = train_or_resume(folder, config)
    assert outcome.state == "failed"
    assert "is in use by" in outcome.message
    assert (folder / "log.txt").read_text() == "precious"

"""What lies in the run directory: metrics.csv, and TensorBoard's event files, read with its own readers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classwise.metrics.confusion import Confusion
from classwise.tracking.confusion_image import confusion_svg, png, write_confusion_images
from classwise.tracking.facts import Ending, Point, RunFacts
from classwise.tracking.to_csv import CsvTable, open_csv
from classwise.tracking.to_tensorboard import EventFiles, open_tensorboard
from tests.helpers.tracked import METRIC, facts_of, points_of, scalars_of, table_of

METRICS = {
    "targets": {"a b": {"labels": ["<30", "착용"], "confusion": [[3, 1], [0, 2]]}, "size": {"mae": 1.0}}
}


def csv_of(facts: RunFacts, keep: int = 0) -> CsvTable:
    return open_csv(facts, {}, keep, lambda **values: None)


def events_of(facts: RunFacts, keep: int = 0) -> EventFiles:
    return open_tensorboard(facts, {}, keep, lambda **values: None)


def test_the_table_has_a_row_a_point_and_a_column_a_number(tmp_path: Path) -> None:
    table = csv_of(facts_of(tmp_path))
    table.log([Point(10, 0.0, {"epoch": 0.5, "train/loss": 1.5})])
    table.log([Point(20, 0.0, {"epoch": 1, "valid/f1": 0.1 + 0.2})])
    table.log([Point(30, 0.0, {"epoch": 1.5, "train/loss": 1.25})])
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines() == [
        "step,epoch,train/loss,valid/f1",
        "10,0.5,1.5,",
        "20,1,,0.30000000000000004",
        "30,1.5,1.25,",
    ]


def test_a_resumed_table_goes_on_after_the_checkpoint(tmp_path: Path) -> None:
    csv_of(facts_of(tmp_path)).log(points_of([1, 2, 3, 4]))
    with (tmp_path / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write("5")  # cut off by a kill
    csv_of(facts_of(tmp_path), keep=2).log(points_of([3, 4], offset=1))
    assert [row["train/loss"] for row in table_of(tmp_path)] == ["0.01", "0.02", "1.03", "1.04"]


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    confusion_images = write_confusion_images(tmp_path, METRICS)
    assert list(confusion_images) == ["confusion/a b"]
    events = events_of(facts_of(tmp_path))
    events.log(points_of([1, 2]))
    scores = {f"final/{METRIC}": 0.5, "final/accuracy": 0.75}
    events.finish(Ending("finished", 2, 0.0, scores=scores, confusion_images=confusion_images))

    assert scalars_of(tmp_path, "train/loss") == [(1, pytest.approx(0.01)), (2, pytest.approx(0.02))]
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    tags = reader.Tags()
    assert sorted(tags["scalars"]) == [f"final/{METRIC}", "train/loss"]
    assert b'    name = "\xeb\xa7\x88' in reader.Tensors("config.toml")[0].tensor_proto.string_val[0]
    image = reader.Images("confusion/a b")[0]
    with Image.open(confusion_images["confusion/a b"]) as shown:
        assert (image.width, image.height) == shown.size
    assert image.encoded_image_string == Path(confusion_images["confusion/a b"]).read_bytes()


def test_tensorboard_shows_the_config_as_hyperparameters(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import api_pb2, metadata

    events_of(facts_of(tmp_path)).finish(Ending("failed"))
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    reader.Reload()
    start = metadata.parse_session_start_info_plugin_data(
        reader.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    )
    found = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert found == facts_of(tmp_path).parameters
    end = metadata.parse_session_end_info_plugin_data(
        reader.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
    )
    assert end.status == api_pb2.STATUS_FAILURE


def test_resumed_event_files_hold_no_point_twice(tmp_path: Path) -> None:
    """In the files themselves: the loaders of TensorBoard differ in what they make of points that were taken back."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    first = events_of(facts_of(tmp_path))
    first.log(points_of([1, 2, 3, 4]))
    events_of(facts_of(tmp_path), keep=2).log(points_of([3, 4, 5], offset=1))
    steps = [
        event.step
        for file in sorted((tmp_path / "tensorboard").glob("events*"))
        for event in EventFileLoader(str(file)).Load()
        if any(value.tag == "train/loss" for value in event.summary.value)
    ]
    assert sorted(steps) == [1, 2, 3, 4, 5]
    assert [round(value, 2) for _, value in scalars_of(tmp_path, "train/loss")] == [
        0.01,
        0.02,
        1.03,
        1.04,
        1.05,
    ]


def test_the_colors_of_the_image_are_the_shares_of_a_class() -> None:
    drawing = confusion_svg("a", Confusion.of(np.array([[3, 1], [0, 2]])), ["<b>", "c"])
    assert drawing.count('#0062a8" fill-opacity') == 2
    assert drawing.count('#c25200" fill-opacity') == 1
    assert 'fill-opacity="1.0"' in drawing  # both rows of the second class
    assert "&lt;b&gt;" in drawing
    assert png(drawing).startswith(b"\x89PNG")


def test_a_thousand_classes_are_drawn_without_names() -> None:
    drawing = confusion_svg("a", Confusion.of(np.eye(1000, dtype=int)), [f"class {k}" for k in range(1000)])
    assert drawing.count("<text") == 2

"""Event files for TensorBoard, in RUN/tensorboard: `tensorboard --logdir runs` shows all runs beside each other.

Scalars, the config as text and as hyperparameters, and the confusion matrices as images. The files are written with
TensorBoard's own writer; torch.utils.tensorboard is the same, with an import of torch that takes seconds.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from classwise.tracking.facts import Ending, Point, RunFacts

FOLDER = "tensorboard"


class EventFiles:
    """The event files of one run: a new one each time that it goes on."""

    def __init__(self, facts: RunFacts, keep: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = Path(facts.folder) / FOLDER
        self.where = f"tensorboard --logdir {folder}"
        is_new = not folder.exists()
        if not is_new:
            _erase_after(folder, keep)
        self._writer = EventFileWriter(str(folder))
        self._event = Event
        self._metric = facts.metric

        # A TensorBoard that is open already drops what it has read from this step on. It takes the first of these for
        # the start of a run, so each file has one.
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time.time(), step=keep + 1, session_log=start))
        if is_new:
            self._write_summary(_hyperparameters(facts), step=0)
            for file in map(Path, facts.files):
                self._write_summary(_text(file.name, file.read_text(encoding="utf-8")), step=0)
        self._writer.flush()

    def log(self, points: Sequence[Point]) -> None:
        """A scalar a number."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for point in points:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in point.values.items()]
            self._write_summary(Summary(value=values), point.step, point.time)
        self._writer.flush()

    def finish(self, ending: Ending) -> None:
        """The confusion matrices, the selecting score of the best checkpoint (each would be a chart of one point), and
        whether the run has finished."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=tag, simple_value=score)
            for tag, score in ending.scores.items()
            if tag.split("/", 1)[1] == self._metric
        ]
        values += [
            Summary.Value(tag=name, image=_image(Path(path).read_bytes()))
            for name, path in ending.confusion_images.items()
        ]
        if values:
            self._write_summary(Summary(value=values), ending.step, ending.time)
        if ending.is_done or ending.state == "failed":
            self._write_summary(_session_end(ending.is_done), ending.step, ending.time)
        self._writer.close()

    def _write_summary(self, summary: Any, step: int, wall_time: float | None = None) -> None:
        moment = time.time() if wall_time is None else wall_time
        self._writer.add_event(self._event(wall_time=moment, step=step, summary=summary))


def open_tensorboard(
    facts: RunFacts, memory: dict[str, Any], keep: int, remember: Callable[..., None]
) -> EventFiles:
    """A new event file, beside those that are there up to the step `keep`."""
    return EventFiles(facts, keep)


def _erase_after(folder: Path, keep: int) -> None:
    """Take the events after the step `keep` out of all event files.

    TensorBoard's own way, to write the step from which the rest is to be ignored (`purge_step`), works with neither of
    its two loaders: findings/tensorboard-purge-step.sh.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    for file in sorted(folder.glob("events.out.tfevents.*")):
        records = list(RawEventFileLoader(str(file)).Load())
        kept = [record for record in records if Event.FromString(record).step <= keep]
        if len(kept) < len(records):
            new = folder / ".rewritten"
            with new.open("wb") as stream:
                writer = RecordWriter(stream)
                for record in kept:
                    writer.write(record)
                writer.flush()
            new.replace(file)


def _text(tag: str, content: str) -> Any:
    """A text in the tab TEXT, which renders Markdown: as a block of code."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING
    from tensorboard.plugins.text.plugin_data_pb2 import TextPluginData

    plugin = SummaryMetadata.PluginData(plugin_name="text", content=TextPluginData().SerializeToString())
    block = "".join(f"    {line}\n" for line in content.splitlines())
    tensor = TensorProto(
        dtype=DT_STRING,
        string_val=[block.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    metadata = SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


def _image(png: bytes) -> Any:
    """A PNG file; its size is in its header."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    return Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)


def _hyperparameters(facts: RunFacts) -> Any:
    """The config for the tab HPARAMS, and the scores that stand beside it."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    infos = []
    start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time(), group_name=facts.name)
    for name, value in facts.parameters.items():
        if isinstance(value, bool):
            start.hparams[name].bool_value = value
            kind = api_pb2.DATA_TYPE_BOOL
        elif isinstance(value, str):
            start.hparams[name].string_value = value
            kind = api_pb2.DATA_TYPE_STRING
        else:
            start.hparams[name].number_value = value
            kind = api_pb2.DATA_TYPE_FLOAT64
        infos.append(api_pb2.HParamInfo(name=name, type=kind))
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag))
        for tag in (f"final/{facts.metric}", f"valid/{facts.metric}", "train/epoch_loss")
    ]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    parts = {
        metadata.EXPERIMENT_TAG: plugin_data_pb2.HParamsPluginData(experiment=experiment),
        metadata.SESSION_START_INFO_TAG: plugin_data_pb2.HParamsPluginData(session_start_info=start),
    }
    return Summary(value=[_hyperparameter_value(tag, data) for tag, data in parts.items()])


def _session_end(is_done: bool) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if is_done else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    return Summary(value=[_hyperparameter_value(metadata.SESSION_END_INFO_TAG, data)])


def _hyperparameter_value(tag: str, data: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata

    return Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )

"""TensorBoard: started on what runs have logged, and what is written for it beside scalars."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean

__all__ = [
    "hparams_summary",
    "image_summary",
    "layout_summary",
    "start_tensorboard",
    "tensorboard_command",
    "write_summaries",
]


def tensorboard_command(argv: Sequence[str]) -> list[str]:
    """TensorBoard's command line for ``PATH [port=6006]``: for this machine alone, all files of a resumed run read.

    Raises:
        ConfigError: a path without event files, or a port that is none.
    """
    for word in argv:
        if word.startswith(("-", "host=")):  # whoever reaches the port reads all that the runs have logged
            raise ConfigError(word.partition("=")[0], "is not for lrkit board, which serves this machine alone")
    paths = [word for word in argv if not word.startswith("port=")]
    ports = [word.partition("=")[2] for word in argv if word.startswith("port=")]
    if len(paths) != 1:
        raise ConfigError("lrkit board", "needs one folder: lrkit board outputs", " ".join(argv))
    path, port = Path(paths[0]), (ports or ["6006"])[-1]
    key, equals, _ = paths[0].partition("=")
    if equals and key.isidentifier() and not os.path.exists(path):
        raise ConfigError(key, f"is not a key. {did_you_mean(key, ['port'])}")
    if not os.path.isdir(path):  # also where it cannot be a path: too long, or with a null character
        raise ConfigError(str(path), "must be a folder that exists")
    if not port.isdigit() or not 0 <= int(port) < 2**16:
        raise ConfigError("port", "must be a whole number in [0, 65535]; 0 takes one that is free", port)
    if next(path.rglob("*tfevents*"), None) is None:
        raise ConfigError(str(path), "has no event files in it, at no depth")
    # Without reload_multifile, what a resumed run writes into a second file is not seen until a restart.
    options = ["--logdir", str(path), "--host", "127.0.0.1", "--port", port, "--reload_multifile", "true"]
    # -P: else a file of the folder that we are in, such as numpy.py, would be taken for the library.
    return [sys.executable, "-P", "-m", "tensorboard.main", *options]


def start_tensorboard(argv: Sequence[str]) -> int:
    """Start TensorBoard, and wait until it ends."""
    return subprocess.call(tensorboard_command(argv))


def image_summary(tag: str, png: bytes) -> Any:
    """A picture as a summary; its bytes stay as they are."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))  # where PNG has them
    encoded = Summary.Image(encoded_image_string=png, height=height, width=width, colorspace=4)
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])


def layout_summary() -> Any:
    """The page "Custom scalars" as a summary: the rates of all runs in one chart, their losses in the next."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.custom_scalar import layout_pb2

    charts = [
        layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        for title, tags in (
            ("learning rate", ["^lr/"]),
            ("training loss", ["^train.?loss$"]),
            ("validation loss", ["^val.?loss$"]),
            ("momentum, weight decay, gain", ["^momentum/", "^weight_decay/", "^gain$"]),
        )
    ]
    charted = layout_pb2.Layout(category=[layout_pb2.Category(title="all runs", chart=charts)])
    # As the plugin's own summary.pb() makes it, which needs TensorFlow.
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="custom_scalars"))
    text = TensorProto(dtype="DT_STRING", string_val=[charted.SerializeToString()], tensor_shape=TensorShapeProto())
    return Summary(value=[Summary.Value(tag="custom_scalars__config__", tensor=text, metadata=metadata)])


def hparams_summary(keys: Sequence[str], metrics: Sequence[str]) -> Any:
    """What the page "HParams" shows of a sweep, as a summary: the keys that were swept, the metrics in this order."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    experiment = api_pb2.Experiment(
        hparam_infos=[api_pb2.HParamInfo(name=key) for key in keys],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in metrics],
    )
    content = plugin_data_pb2.HParamsPluginData(experiment=experiment, version=0).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    value = Summary.Value(tag="_hparams_/experiment", metadata=SummaryMetadata(plugin_data=plugin))
    return Summary(value=[value])


#: The end of the names of the event files that lrkit writes itself: what it may take away again.
OURS = ".lrkit"


def write_summaries(folder: Path, *summaries: Any) -> None:
    """Write summaries into an event file of their own, whose name says that lrkit wrote it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder), filename_suffix=OURS)
    for summary in summaries:
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()

"""The summaries that lrkit writes for TensorBoard beside scalars: images, charts, and the page of a sweep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["LRKIT_SUFFIX", "hparams_summary", "image_summary", "layout_summary", "write_summaries"]

#: Suffix of the event files that lrkit writes itself, and may delete again.
LRKIT_SUFFIX = ".lrkit"


def image_summary(tag: str, png: bytes) -> Any:
    """Return a PNG as an image summary, without a change of its bytes."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = (int.from_bytes(png[i : i + 4], "big") for i in (16, 20))  # the offsets in a PNG
    encoded = Summary.Image(encoded_image_string=png, height=height, width=width, colorspace=4)
    return Summary(value=[Summary.Value(tag=tag, image=encoded)])


def layout_summary() -> Any:
    """Return the summary of the page "Custom scalars": charts of learning rates, losses and other factors."""
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
    # The same as the plugin's summary.pb(), which needs TensorFlow.
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="custom_scalars"))
    text = TensorProto(dtype="DT_STRING", string_val=[charted.SerializeToString()], tensor_shape=TensorShapeProto())
    return Summary(value=[Summary.Value(tag="custom_scalars__config__", tensor=text, metadata=metadata)])


def hparams_summary(keys: Sequence[str], metrics: Sequence[str]) -> Any:
    """Return the summary of a sweep's page "HParams": the swept keys, and the metrics in this order."""
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


def write_summaries(folder: Path, *summaries: Any) -> None:
    """Write summaries into a separate event file, with a suffix that marks it as lrkit's."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder), filename_suffix=LRKIT_SUFFIX)
    for summary in summaries:
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()

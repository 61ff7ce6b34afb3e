"""The summaries for TensorBoard: its own readers read them as they were written."""

from __future__ import annotations

import re
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from lrkit.base.tensorboard_summaries import hparams_summary, layout_summary, write_summaries


def test_the_layout_puts_the_rates_and_losses_of_all_runs_together(tmp_path: Path) -> None:
    write_summaries(tmp_path, layout_summary())
    events = EventAccumulator(str(tmp_path)).Reload()
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    tags = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    assert tags["learning rate"] == ["^lr/"]
    assert [bool(re.search(tags["validation loss"][0], tag)) for tag in ("val/loss", "val_loss", "train/loss")] == [
        True, True, False,
    ]  # fmt: skip


def test_the_hparams_of_a_sweep_are_those_that_were_swept(tmp_path: Path) -> None:
    write_summaries(tmp_path, hparams_summary(["schedule", "seed"], ["result/best val/loss"]))
    metadata = EventAccumulator(str(tmp_path)).Reload().SummaryMetadata("_hparams_/experiment")
    experiment = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).experiment
    assert [info.name for info in experiment.hparam_infos] == ["schedule", "seed"]
    assert [info.name.tag for info in experiment.metric_infos] == ["result/best val/loss"]

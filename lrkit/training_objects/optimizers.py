"""The optimizer of a config, or several with a track for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrkit.lightning.module import TrackSetup
from lrkit.optim import factory
from lrkit.planning import optimizer_tracks

__all__ = ["optimizer_of", "tracks_of"]


def optimizer_of(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class path of the optimizer, and its options without the rate."""
    node = config["optimizer"]
    return str(node["_target_"]), {name: value for name, value in node.items() if name not in ("_target_", "lr")}


def tracks_of(config: Mapping[str, Any]) -> list[TrackSetup]:
    """The setup of each of several optimizers; empty for a run with one."""
    setups = []
    for track in optimizer_tracks.parse_tracks(config[optimizer_tracks.KEY]):
        own = track.config(config)
        target, options = optimizer_of(own)
        with track.naming():
            factory.check_optimizer(target, options)
        setups.append(TrackSetup(track, target, options, own["param_groups"]))
    return setups

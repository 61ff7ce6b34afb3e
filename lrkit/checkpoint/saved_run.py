"""The checkpoint from which a run is resumed, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError
from lrkit.checkpoint import durable_io
from lrkit.checkpoint.checkpoint_schema import check_content
from lrkit.config.resume_options import checkpoint_candidates, refuse_folder

__all__ = ["SavedRun", "load_saved_run"]


def load_saved_run(path: str) -> SavedRun:
    """Read a checkpoint, or the last one in a run's folder. Executes no code from the file.

    If the last checkpoint is damaged, the previous one is read instead, and ``skipped`` reports it.

    Raises:
        ConfigError: the file does not exist, is damaged, or was not written by lrkit.
    """
    key, files, damaged = "resume.path", checkpoint_candidates(Path(path)), []
    refuse_folder(files, path)
    if not any(each.exists() for each in files):
        raise ConfigError(key, "must be an existing checkpoint or the folder of a run", path)
    for file in files:
        content, wrong = durable_io.read_checkpoint(file)
        if not wrong:
            break
        damaged.append(f"{file.name}: {wrong}")
    else:
        raise ConfigError(key, f"cannot be read as a checkpoint ({'; '.join(damaged)})", path)
    if not isinstance(content, dict) or "lrkit" not in content:
        kind = "a Lightning checkpoint" if isinstance(content, dict) and "state_dict" in content else "a checkpoint"
        raise ConfigError(key, f"must be a checkpoint that lrkit wrote; this is {kind} without a plan", path)
    if not content.get("optimizer_states"):
        must = "contains only weights, and no state of an optimizer: use a checkpoint without save_weights_only"
        raise ConfigError(key, must, path)
    try:
        plan = check_content(content)
    except ConfigError as error:
        said = str(error).rstrip(".")
        raise ConfigError(key, f"must be a checkpoint in the format of lrkit; in {file.name}, {said}") from None
    step, tracks = content["lrkit"]["step"], dict(content["lrkit"].get("tracks", {}))
    skipped = f"{damaged[0]}; resuming from {file.name}, step {step}" if damaged else ""
    return SavedRun(file, plan, step, content, skipped, tracks)


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint that lrkit wrote.

    Args:
        path: the file.
        plan: the plan of the run that wrote it, as JSON.
        step: the number of applied optimizer steps; with several optimizers, of batches.
        content: the whole content of the file.
        skipped: the newer file that is damaged, and its damage; empty if there is none.
        tracks: with several optimizers, the number of applied steps of each one.
    """

    path: Path
    plan: Mapping[str, Any]
    step: int
    content: Mapping[str, Any]
    skipped: str = ""
    tracks: Mapping[str, int] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """The config of the run that wrote the checkpoint."""
        return dict(self.plan["config"])

    @property
    def monitor(self) -> str | None:
        """The metric by which that run chose its best checkpoint."""
        return self.content["lrkit"]["monitor"]  # type: ignore[no-any-return]

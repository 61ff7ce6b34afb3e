"""The node ``resume``: the names of the policies, and the checkpoints to try for a path. No file is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lrkit.base.errors import ConfigError, did_you_mean
from lrkit.base.run_files import CHECKPOINTS, LAST, PREVIOUS

__all__ = ["POLICIES", "check", "check_cooldown", "checkpoint_candidates", "refuse_folder"]

POLICIES = ("restore", "override", "extend", "cooldown", "restart")


def checkpoint_candidates(path: Path) -> list[Path]:
    """Return the checkpoints to try for a path, in order: last.ckpt and previous.ckpt of a run, or the file itself."""
    if path.is_dir() and (path / CHECKPOINTS).is_dir():
        path = path / CHECKPOINTS / LAST
    beside = path.parent / PREVIOUS
    return [path, beside] if path.name == LAST and beside.is_file() else [path]


def refuse_folder(files: Sequence[Path], path: Any) -> None:
    """Refuse a folder that is no run's: another one, or a checkpoint of shards, whose description is a pickle.

    Args:
        files: the candidates for ``path``.
        path: what the user gave.
    """
    folder = files[0]
    if not folder.is_dir() or (folder.name == LAST and len(files) > 1):
        return
    must = f"must be a checkpoint or the folder of a run: there is no {folder / CHECKPOINTS / LAST}"
    if (folder / ".metadata").exists():
        must = (
            f"must be a checkpoint in one file: {folder} is a folder of shards, and lrkit executes no pickle of a"
            " checkpoint; the strategies of lightning write one file with save_distributed_checkpoint=false or"
            " state_dict_type=full"
        )
    raise ConfigError("resume.path", must, path)


def check(config: Mapping[str, Any]) -> list[Path]:
    """Check the node ``resume``; return the checkpoints to try, none for a new run.

    Raises:
        ConfigError: with the key.
    """
    path, policy = config["resume"]["path"], config["resume"]["policy"]
    if policy is not None and policy not in POLICIES:
        raise ConfigError("resume.policy", f"is not a policy. {did_you_mean(str(policy), POLICIES)}", policy)
    if path is None:
        if policy is not None:
            raise ConfigError("resume.path", f"must be set with resume.policy={policy}")
        return []
    try:
        files = checkpoint_candidates(Path(str(path)))
        there = any(file.exists() for file in files)
    except (OSError, ValueError) as error:  # not a path: too long, or with a null character
        why = getattr(error, "strerror", None) or error
        raise ConfigError("resume.path", f"must be a path that can be read ({why})", path) from None
    refuse_folder(files, path)
    if not there:
        raise ConfigError("resume.path", "must be an existing checkpoint or the folder of a run", path)
    return files


def check_cooldown(config: Mapping[str, Any]) -> None:
    """Refuse the policy ``cooldown`` without a cooldown. The plan of such a run has no cooldown: check the config."""
    if config["resume"]["policy"] == "cooldown" and config["resume"]["path"] is not None and not config["cooldown"]:
        raise ConfigError("cooldown", "must be set with resume.policy=cooldown: cooldown=sqrt cooldown.length=100")

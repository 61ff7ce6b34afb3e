"""The plans to predict: the config of a finished run, changed by overrides with several values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lrkit.base.command_line import CONFIG_FILE, quote_path
from lrkit.base.errors import ConfigError
from lrkit.base.run_files import CONFIG_JSON, CONFIG_YAML
from lrkit.planning.plan import Plan

__all__ = ["list_candidates"]


def list_candidates(run: Path, overrides: Sequence[str], config_dir: str | None = None) -> dict[str, Plan]:
    """Return label -> plan for each combination of the values of the overrides.

    Args:
        run: folder of a finished run, whose config holds for everything that no override changes.
        overrides: as of a sweep: ``schedule=cosine,wsd``; ``trust`` is not swept.
        config_dir: a folder with the user's own groups and options.

    Raises:
        ConfigError: no override, or an invalid one.
    """
    from lrkit.config import compose as configs
    from lrkit.config.sweep_values import expand_jobs, list_choices

    trusted = [word for word in overrides if word.startswith("trust=")]
    overrides = [word for word in overrides if word not in trusted]
    if not overrides:
        raise ConfigError("lrkit predict", "needs what to predict, such as schedule=cosine,wsd,linear")
    swept = {choice.text for choice in list_choices(overrides, config_dir) if len(choice.alternatives) > 1}
    file = next((run / name for name in (CONFIG_JSON, CONFIG_YAML) if (run / name).is_file()), None)
    if file is None:
        raise ConfigError(str(run), "must have a config.json, which says what the overrides change")
    plans = {}
    for job in expand_jobs(overrides, config_dir):
        told = [word for word in job if word not in overrides] if swept else job
        label = " ".join(word.removeprefix("schedule=") for word in told)
        plans[label] = configs.plan(
            configs.compose([f"{CONFIG_FILE}={quote_path(str(file))}", *trusted, *job], config_dir)
        )
    return plans

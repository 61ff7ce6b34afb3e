"""An error that all jobs of a sweep have in common, found once before the first job.

Packages, files, devices and classes of the user are known only to a process that imports torch. So the jobs are
checked in a process like theirs, one after the other until one passes: an error that not all of them have is the
failure of a job.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from lrkit.base.errors import ConfigError
from lrkit.base.files import read_json, write_json
from lrkit.base.process_pool import Slots, available_slots, run_jobs
from lrkit.config import compose as configs
from lrkit.config.instantiate import use_lightning
from lrkit.sweep.preloading import list_preloaded

__all__ = ["check_jobs", "refuse_common_error"]

#: Jobs that are checked at most; a sweep whose first hundred jobs fail is refused.
MOST = 100


def refuse_common_error(jobs: Sequence[Sequence[str]], config_dir: str | None) -> None:
    """Refuse a sweep of which every job would be refused before its data is read.

    Args:
        jobs: overrides of each job.
        config_dir: folder of the user's own configs.

    Raises:
        ConfigError: that of the first job.
    """
    first = configs.compose(jobs[0], config_dir)
    trainer = first["trainer"]
    slots = available_slots(1, configs.world_of(trainer)[0], str(trainer.get("accelerator")))
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "error.json"
        run_jobs(
            check_jobs,
            [Path(folder) / "check.log"],
            Slots(1, slots.threads, slots.devices[:1]),
            begin=lambda _: ([list(job) for job in jobs[:MOST]], config_dir, str(answer)),
            ended=lambda *_: True,
            preload=list_preloaded({word for job in jobs for word in job}, config_dir),
        )
        error = read_json(answer)
    if isinstance(error, dict):
        raise ConfigError(**error)


def check_jobs(jobs: Sequence[Sequence[str]], config_dir: str | None, answer: str) -> int:
    """Check jobs until one passes; otherwise write the error of the first one to the file ``answer``."""
    errors: list[ConfigError] = []
    for job in jobs:
        try:
            _check_job(job, config_dir)
        except ConfigError as error:
            errors.append(error)
        except Exception:  # a class of the user's, whose failure a job reports with its traceback
            return 0
        else:
            return 0
    first = errors[0]
    received = {} if first.received is ConfigError._nothing else {"received": first.received}
    write_json(Path(answer), {"key": first.key, "must": first.must, **received})
    return 0


def _check_job(job: Sequence[str], config_dir: str | None) -> None:
    config = configs.compose([word for word in job if not word.startswith("hydra.")], config_dir)
    if config["resume"]["path"] is not None:  # its checkpoint may change the config
        return
    use_lightning(config)
    from lrkit.training.checks_before_data import check_run  # imports torch, which the parent process does not need

    check_run(config)

"""The names of the files and folders that a run and a sweep leave behind.

Beside them, a run's folder has Hydra's ``.hydra``, and the files of its loggers, such as TensorBoard's events.
"""

from __future__ import annotations

__all__ = [
    "CHECKPOINTS", "CONFIG_JSON", "CONFIG_YAML", "ENVIRONMENT", "ERROR_LOG", "EVENTS", "FIND", "LAST", "METRICS",
    "PLAN", "PREVIOUS", "RACE", "RUNGS", "SWEEP",
]  # fmt: skip

# In the folder of a run.
PLAN = "plan.json"  #: every factor of every learning rate, and the config with which it was resolved
CONFIG_JSON = "config.json"  #: the config as the user asked for it
CONFIG_YAML = "config.yaml"  #: the same, for ``lrkit train --config``
ENVIRONMENT = "environment.json"  #: git commit, versions and devices, for each start of the run
EVENTS = "events.json"  #: what happened and when: a lower gain, a skipped step, a damaged checkpoint
ERROR_LOG = "error.log"  #: the traceback of an error in the user's code
METRICS = "metrics.json"  #: the status, the final and the best metrics, and the diagnosis
CHECKPOINTS = "checkpoints"  #: the folder of the checkpoints
LAST, PREVIOUS = "last.ckpt", "previous.ckpt"  #: in it: the newest checkpoint, and the one before it

# In the folder of a search.
FIND = "find.json"  #: the learning rate that was found, and the measurements

# In the folder of a sweep, beside the folders of its jobs.
SWEEP = "sweep.json"  #: the command, and the status of each job
RACE = "race.json"  #: of a race: the scores of each rung
RUNGS = "rungs"  #: of a race: the sweeps of short copies, which are not compared with the whole runs

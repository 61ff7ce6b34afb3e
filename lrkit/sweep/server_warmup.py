"""The work that the server process of a sweep does once, so that no job repeats it. Only that process imports this.

A fork inherits what a first use creates: the parsers of overrides, Hydra's plugins, the fonts of figures. Neither torch
nor a thread runs here: a fork of a process with threads may wait for them forever. No random state is used.
"""

from __future__ import annotations

import gc
import tempfile
from contextlib import suppress
from pathlib import Path

from lrkit.config.compose import check, compose
from lrkit.planning.picture import draw_picture

with suppress(Exception):  # a job reports its own errors; an exception here would end the server
    plan = check(compose())
    if plan is not None:
        with tempfile.TemporaryDirectory() as folder:
            draw_picture({"": plan}, Path(folder) / "plan.png")

# A collection of garbage writes to each object that it visits. Objects of the server are left out, so that the jobs
# share their memory.
gc.collect()
gc.freeze()

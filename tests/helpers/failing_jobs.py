"""A callback that makes chosen jobs of a sweep fail: by an exception, divergence, a hang or a kill."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from lrkit.lightning.imports import Callback


class Fate(Callback):
    """Ends a job in the way that its folder's name selects; every start is recorded in ``starts.txt``.

    Args:
        fates: each a part of the folder's name, and ``raise``, ``die`` (a crash without a word), ``diverge``, ``slow``,
            ``hang``, ``stop`` (ignores all signals but SIGKILL), ``starve`` (there is no more memory).
    """

    def __init__(self, fates: list[str]) -> None:
        self.fates = dict(fate.split() for fate in fates)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        folder = self.folder = Path(trainer.default_root_dir)
        with (folder.parent / "starts.txt").open("a") as file:
            file.write(f"{folder.name} {trainer.global_step} {torch.get_num_threads()}\n")
        self.fate = next((fate for part, fate in self.fates.items() if part in folder.name), "")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.fate == "slow":
            time.sleep(0.02)
        if trainer.global_step < 3:
            return
        if self.fate == "raise":
            raise RuntimeError("an unhappy end")
        hung = self.folder.parent / f"{self.folder.name}.hung"
        if self.fate in ("hang", "stop") and trainer.global_step == 5 and not hung.exists():
            hung.touch()  # once
            if self.fate == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1000)
        if self.fate == "starve":
            import resource

            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + 2**26
            resource.setrlimit(resource.RLIMIT_AS, (most, most))  # as ulimit -v does
            self.much = torch.zeros(2**28)
        if self.fate == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "diverge":
            for parameter in pl_module.parameters():
                parameter.data.fill_(torch.nan)

"""A script: a run on two processes that writes the learning rates of the optimizer of each rank."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

rates: list[Any] = []


def look(optimizer: Optimizer, *_: Any) -> None:
    if "name" in optimizer.param_groups[0]:
        rates.append([group["lr"] for group in optimizer.param_groups])


if __name__ == "__main__":
    out, *argv = sys.argv[1:] if sys.argv[1:2] != ["join"] else [os.environ["RATES"], *sys.argv[1:]]
    os.environ["RATES"] = out
    register_optimizer_step_post_hook(look)
    from lrkit.cli.main import main

    code = main(argv)
    rank = os.environ.get("LOCAL_RANK", "0")
    Path(out, f"rank{rank}.json").write_text(json.dumps(rates))
    sys.exit(code)

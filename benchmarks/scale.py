"""The growth of the cost with groups, steps and runs; and the collectives that lrkit adds to a distributed run.

    python benchmarks/scale.py

An exponent of 1 means that twice the number takes twice the time; 0 means that the time is constant. Collectives are
the calls of ``torch.distributed`` during the training of two processes (gloo, CPU), counted with lrkit and without.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import schedule
import torch
from rows import Row, per_call, table

HERE = Path(__file__).parent


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the slope of log cost over log size, by least squares."""
    x, y = [math.log(s) for s in sizes], [math.log(c) for c in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def fastest(call: Callable[[], object], calls: int) -> float:
    return min(per_call(call, calls) for _ in range(7))


def measure_groups() -> Row:
    sizes = (10, 100, 1000, 10_000)
    costs = [fastest(schedule.ours(size), max(5, 20_000 // size)) for size in sizes]
    figures = ", ".join(f"{cost * 1e6:.3g} us at {size}" for size, cost in zip(sizes, costs, strict=True))
    return Row("a step, over parameter groups", "exponent", exponent(sizes, costs), 1.05, figures=figures)


def measure_steps() -> Row:
    from lrkit.schedules.curve import Curve
    from lrkit.schedules.horizon import Horizon
    from lrkit.schedules.shapes import Cosine, Linear

    sizes, costs = (10**3, 10**5, 10**7, 10**9), []
    for size in sizes:
        curve = Curve.build(Cosine(), Horizon(size), warmup=Linear(start=0.1, length=size // 10))
        costs.append(fastest(lambda curve=curve, at=size // 2: curve(at), 5000))
    figures = ", ".join(f"{cost * 1e6:.2g} us of {size:.0e}" for size, cost in zip(sizes, costs, strict=True))
    return Row("a step, over the steps of the run", "exponent", exponent(sizes, costs), 0.05, figures=figures)


def measure_runs() -> Row:
    from lrkit.comparison.ranking import compare

    sizes, costs = (25, 100, 400), []
    with tempfile.TemporaryDirectory() as parent:
        for size in sizes:
            folder = Path(parent, str(size))
            for i in range(size):
                _write_run(folder / f"run{i}", lr=0.1 * (1 + i % 5), seed=i // 5)
            costs.append(min(per_call(lambda folder=folder: compare([folder]), 1) for _ in range(3)))
    figures = ", ".join(f"{cost:.2g} s for {size}" for size, cost in zip(sizes, costs, strict=True))
    return Row("lrkit compare, over runs", "exponent", exponent(sizes, costs), 1.1, figures=figures)


def _write_run(folder: Path, lr: float, seed: int) -> None:
    """Write the files of a run, without its curves."""
    folder.mkdir(parents=True)
    loss = 1.0 + abs(math.log(lr / 0.3)) + 0.01 * seed
    ends = {"val/loss": loss, "train/loss": loss}
    result = {"status": "done", "monitor": "val/loss", "steps": 100, "epochs": 1, "seconds": 1.0, "final": ends,
              "best": {"step": 100, "epoch": 1, **ends}}  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(result))
    config = {"seed": seed, "optimizer": {"_target_": "torch.optim.SGD", "lr": lr}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "plan.json").write_text(json.dumps({"config": config, "base_lr": lr}))


def measure_checkpoint() -> Row:
    """Return the row of the bytes that lrkit adds to a checkpoint of any model; most of them are random states."""
    import training

    from lrkit.config.compose import compose
    from lrkit.training.run import run_training

    with tempfile.TemporaryDirectory() as folder:
        config = compose(["trainer.max_epochs=1", "trainer.limit_train_batches=100", "model.hidden=[512,512]"])
        run_training(config, Path(folder), quiet=True)
        saved = torch.load(Path(folder, "checkpoints", "last.ckpt"), weights_only=True)
        whole = Path(folder, "checkpoints", "last.ckpt").stat().st_size
    assert training.SAMPLES
    ours = {"lrkit": saved["lrkit"], "callbacks": saved["callbacks"], "schedule": saved["lr_schedulers"]}
    size = len(pickle.dumps(ours))
    return Row("bytes in a checkpoint that are lrkit's", "a checkpoint of 0.3 M parameters", size / whole,
               figures=f"{size / 1024:.0f} KiB")  # fmt: skip


#: Counts the collectives of the training in each process; the start and the end of the processes are left out.
COUNTED = """
import collections, json, sys, os
import torch, torch.distributed as dist
from pytorch_lightning import Callback
NAMES = ("all_reduce", "all_gather", "all_gather_object", "broadcast", "reduce", "barrier", "gather", "scatter",
         "reduce_scatter", "broadcast_object_list", "all_gather_into_tensor")
calls, on = collections.Counter(), []
def counted(name):
    real = getattr(dist, name)
    def call(*args, **kwargs):
        if on: calls[name] += 1
        return real(*args, **kwargs)
    return call
for name in NAMES:
    setattr(dist, name, counted(name))
class Count(Callback):
    def on_train_batch_start(self, trainer, module, batch, i):
        if i == 5: on.append(1)
    def on_train_batch_end(self, trainer, module, outputs, batch, i):
        if i == 44:
            on.clear()
            if trainer.global_rank == 0:
                open(sys.argv[1], "w").write(json.dumps(calls))
"""
PLAIN = (
    COUNTED
    + """
import training, warnings; warnings.simplefilter("ignore")
from pytorch_lightning import Trainer
Trainer(max_epochs=1, devices=2, strategy="ddp", accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[Count()]).fit(
        training.Plain(100, False), datamodule=training.Data())
"""
)
OURS = (
    COUNTED
    + """
import os
from pathlib import Path
import training
from lrkit.config.compose import compose
from lrkit.training import callbacks
from lrkit.training.run import run_training
callbacks.callbacks_of = lambda *_: [Count()]
folder = Path(os.environ["FOLDER"]) / os.environ["RANK"]
folder.mkdir()
run_training(compose(["data=custom", "data._target_=training.Data", "data.batch_size=64",
    f"data.train_samples={training.SAMPLES}", "model=custom", "model._target_=training.Net", "trainer.devices=2",
    "trainer.strategy=ddp",
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_val_batches=0"]), folder, quiet=True)
"""
)


def measure_collectives() -> Row:
    counts = {}
    for name, script in {"lrkit": OURS, "plain": PLAIN}.items():
        with tempfile.TemporaryDirectory() as folder:
            out, file = Path(folder, "calls.json"), Path(folder, "script.py")
            file.write_text(script)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = str(probe.getsockname()[1])
            env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "FOLDER": folder,
                   "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}  # fmt: skip
            ranks = [
                subprocess.Popen([sys.executable, str(file), str(out)], cwd=folder, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True,
                                 env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank), "NODE_RANK": "0"})
                for rank in range(2)
            ]  # fmt: skip
            said = [rank.communicate(timeout=300)[1] for rank in ranks]
            if not out.exists():
                raise RuntimeError("\n".join(said)[-3000:])
            counts[name] = json.loads(out.read_text())
    total = {name: sum(each.values()) for name, each in counts.items()}
    figures = f"in 40 steps {total['lrkit']} and {total['plain']} ({', '.join(counts['plain']) or 'none'})"
    added = (total["lrkit"] - total["plain"]) / 40
    return Row("collectives that lrkit adds to a step", "plain Lightning", added, 0.0, figures=figures)


def rows() -> list[Row]:
    return [measure_groups(), measure_steps(), measure_runs(), measure_checkpoint(), measure_collectives()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table(rows()))

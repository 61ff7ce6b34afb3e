"""The trainings of the GPU benchmark: two networks, three ways to train them, and the meter that all ways share."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, LearningRateMonitor
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR

import lrkit
from lrkit.models import CharTransformer, Cnn2d

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
PRECISIONS = ("fp32", "TF32", "bf16-mixed", "16-mixed")
#: As Lightning names them.
LIGHTNING = {"fp32": "32-true", "TF32": "32-true"}
VOCABULARY, CONTEXT = 96, 128
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")


def machine(add: Any, small: bool) -> None:
    """The row of the machine. It also fails early if there is no GPU."""
    if not ON_GPU and not small:
        raise RuntimeError("no CUDA device: --small runs on a CPU")
    card = "none (CPU)"
    if ON_GPU:
        properties = torch.cuda.get_device_properties(0)
        card = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    versions = {"python": platform.python_version(), "torch": torch.__version__, "lightning": pl.__version__}
    add(card=card, driver=_read_driver(), CPUs=_count_cpus(), **versions, cuda=torch.version.cuda)


def _read_driver() -> str | None:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def _count_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_precision(name: str) -> None:
    """Allow TF32 in matrix products and convolutions, or forbid it."""
    torch.set_float32_matmul_precision("high" if name == "TF32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "TF32"


def make_network(name: str, small: bool) -> nn.Module:
    torch.manual_seed(0)
    if name == "conv":
        return Cnn2d((3, 32, 32), 10, (8, 16) if small else (64, 128, 256))
    if name == "transformer":
        return CharTransformer(CONTEXT, VOCABULARY, *((1, 32, 2) if small else (4, 256, 4)))
    width = 64 if small else 2048
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(3 if small else 10)))


def make_batches(name: str, small: bool, device: torch.device = DEVICE) -> list[tuple[Tensor, Tensor]]:
    """Eight batches on the device. The target of a character is a function of it, which can be learned."""
    draw = torch.Generator().manual_seed(1)
    size = 8 if small else {"conv": 512, "transformer": 64}.get(name, 256)
    batches = []
    for _ in range(8):
        if name == "conv":
            x = torch.rand(size, 3, 32, 32, generator=draw)
            y = torch.randint(0, 10, (size,), generator=draw)
        elif name == "transformer":
            x = torch.randint(0, VOCABULARY, (size, CONTEXT), generator=draw)
            y = (x * 5 + 3) % VOCABULARY
        else:
            x = torch.rand(size, 64 if small else 2048, generator=draw)
            y = torch.randint(0, 10, (size,), generator=draw)
        batches.append((x.to(device), y.to(device)))
    return batches


def compute_loss(network: nn.Module, batch: Sequence[Tensor]) -> Tensor:
    x, y = batch
    return F.cross_entropy(network(x).flatten(0, -2), y.flatten())


class Repeated:
    """A loader that repeats a few batches."""

    def __init__(self, batches: Sequence[Any], count: int) -> None:
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return (self.batches[i % len(self.batches)] for i in range(self.count))


class Data(pl.LightningDataModule):
    def __init__(self, loader: Any, batch_size: int) -> None:
        super().__init__()
        self.loader, self.batch_size = loader, batch_size

    def train_dataloader(self) -> Any:
        return self.loader


class Module(pl.LightningModule):
    """The module of plain Lightning, which lrkit trains unchanged."""

    def __init__(self, network: nn.Module, steps: int) -> None:
        super().__init__()
        self.network, self.steps = network, steps

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = compute_loss(self.network, batch)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer, scheduler = make_optimizer(self.network, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def make_optimizer(network: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    return optimizer, CosineAnnealingLR(optimizer, steps)


@dataclass
class Schedule:
    """The steps of a measured training: some to warm up, then windows of time, then profiled or watched steps."""

    first: int = 20
    windows: int = 5
    length: int = 60
    profiled: int = 0
    watched: int = 0

    @property
    def steps(self) -> int:
        return self.first + self.windows * self.length + max(self.profiled, self.watched) + 2


class Meter:
    """Measures a training from the outside: ``before_step`` is called before each of its steps."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.marks = [schedule.first + i * schedule.length for i in range(schedule.windows + 1)]
        self.times: list[float] = []
        self.columns: dict[str, Any] = {}
        self.syncs: Counter[str] = Counter()
        self.profile: Any = None
        self.caught: Any = None

    def before_step(self, step: int) -> None:
        if step in self.marks and self.schedule.windows:
            synchronize()
            self.times.append(time.perf_counter())
        end = self.marks[-1]
        if self.schedule.profiled:
            self._profile(step, end)
        if self.schedule.watched:
            if step == end:
                self._begin_to_watch()
            elif step == end + self.schedule.watched:
                self._end_to_watch()

    @property
    def seconds(self) -> list[float]:
        """The seconds of a step, of each window."""
        return [(b - a) / self.schedule.length for a, b in zip(self.times, self.times[1:], strict=False)]

    def speed(self) -> dict[str, Any]:
        """The columns of the speed: steps a second, and its range over the windows."""
        rates = [1 / each for each in self.seconds]
        return {"steps/s": median(rates), "range": f"{min(rates):.4g}-{max(rates):.4g}"}

    def _profile(self, step: int, end: int) -> None:
        if step == end:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            kinds += [torch.profiler.ProfilerActivity.CUDA] if ON_GPU else []
            self.profile = torch.profiler.profile(activities=kinds, acc_events=True)
            try:
                self.profile.start()
            except Exception:
                traceback.print_exc()
                self.profile = None
        elif step == end + self.schedule.profiled and self.profile is not None:
            synchronize()
            self.profile.stop()
            self.columns |= self._count(self.profile.key_averages())
            self.profile = None

    def _count(self, events: Any) -> dict[str, Any]:
        """The columns of a profile, each of one step."""
        steps = self.schedule.profiled
        operators = sum(each.count for each in events if each.key.startswith("aten::")) / steps
        if not ON_GPU:
            return {"operators": operators}
        busy = sum(each.self_device_time_total for each in events if "CUDA" in str(each.device_type)) / steps * 1e-6
        return {
            "launches": sum(each.count for each in events if each.key in LAUNCHES) / steps,
            "copies": sum(each.count for each in events if each.key.startswith("cudaMemcpy")) / steps,
            "waits": sum(each.count for each in events if each.key in WAITS) / steps,
            "operators": operators,
            "device busy %": 100 * busy / median(self.seconds) if self.seconds else None,
        }

    def _begin_to_watch(self) -> None:
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("warn")
        warnings.simplefilter("always")
        warnings.showwarning = self._notice

    def _end_to_watch(self) -> None:
        if ON_GPU:
            torch.cuda.set_sync_debug_mode("default")
        self.caught.__exit__(None, None, None)
        self.caught = None

    def _notice(self, message: Any, *_: Any, **__: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            stack = traceback.extract_stack()[:-1]  # without this method
            self.syncs[find_source([(frame.filename, frame.lineno or 0) for frame in stack])] += 1


def find_source(stack: Sequence[tuple[str, int]], package: str = str(Path(lrkit.__file__).parent)) -> str:
    """The source line of a warning: the innermost one, and the one of lrkit that led to it, if there is one."""
    lines = [*stack]
    while lines and Path(lines[-1][0]).name == "warnings.py":
        lines.pop()
    named = [f"{'/'.join(Path(file).parts[-2:])}:{line}" for file, line in lines]
    ours = [name for name, (file, _) in zip(named, lines, strict=True) if file.startswith(package + "/")]
    inner = named[-1] if named else "unknown"
    return inner if not ours or ours[-1] == inner else f"{inner} by {ours[-1]}"


class Measure(Callback):
    """Calls the current meter from a trainer."""

    meter: Meter | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if Measure.meter is not None:
            Measure.meter.before_step(batch_idx)


def synchronize() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def free_memory() -> None:
    """Free the memory of earlier trainings, and begin to record the peak anew."""
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def by_hand(network: nn.Module, loader: Any, precision: str, meter: Meter) -> None:
    """Train by a loop without Lightning."""
    network = network.to(DEVICE)
    optimizer, scheduler = make_optimizer(network, meter.schedule.steps)
    mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    scaler = torch.amp.GradScaler(DEVICE.type, enabled=precision == "16-mixed")
    network.train()
    for step, batch in enumerate(loader):
        meter.before_step(step)
        batch = [each.to(DEVICE, non_blocking=True) for each in batch]
        optimizer.zero_grad()
        with torch.autocast(DEVICE.type, mixed, enabled=mixed is not None):
            loss = compute_loss(network, batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()


def by_lightning(network: nn.Module, loader: Any, precision: str, meter: Meter) -> None:
    """Train by plain Lightning with its logging."""
    Measure.meter, steps = meter, meter.schedule.steps
    with tempfile.TemporaryDirectory() as folder:
        pl.Trainer(
            max_steps=steps, accelerator=DEVICE.type, devices=1, precision=LIGHTNING.get(precision, precision),
            logger=TensorBoardLogger(folder), callbacks=[Measure(), LearningRateMonitor("step")], max_epochs=-1,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        ).fit(Module(network, steps), datamodule=Data(loader, 1))  # fmt: skip


def by_lrkit(
    network: nn.Module,
    loader: Any,
    precision: str,
    meter: Meter,
    *overrides: str,
    data: Any = None,
    optimizer: str = "adamw",
) -> Any:
    """Train by lrkit, with the same module; return the finished run."""
    Measure.meter, steps = meter, meter.schedule.steps
    with tempfile.TemporaryDirectory() as folder:
        return lrkit.train(
            f"trainer.max_steps={steps}", "trainer.max_epochs=-1", f"trainer.accelerator={DEVICE.type}",
            f"trainer.precision={LIGHTNING.get(precision, precision)}", "trainer.limit_val_batches=0",
            "trainer.enable_checkpointing=false", "+callbacks.measure._target_=gpu_training.Measure",
            f"optimizer={optimizer}", *overrides,
            folder=folder, module=Module(network, steps), data=data or Data(loader, 1), trust=["gpu_training"],
            quiet=True,
        )  # fmt: skip

"""The checks of `lrkit doctor`. Each one yields findings; an error in it is a finding too, and the others go on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

__all__ = ["CHECKS", "EXTRAS", "Finding"]


class Finding(NamedTuple):
    """A line of the report.

    Args:
        mark: ``ok``, ``note`` (works, but could be better or may surprise), or ``problem`` (broken).
        text: what was found, and what to do.
    """

    mark: Literal["ok", "note", "problem"]
    text: str


#: What each extra of lrkit is for.
EXTRAS = {
    "optim": "optimizer=lars, lion, prodigy, ranger, schedule_free_adamw, schedule_free_sgd",
    "plot": "format=png, compare.png, find.png",
    "mnist1d": "data=mnist1d",
    "vision": "data=torchvision",
    "hf": "data=huggingface",
    "joblib": "+launcher=joblib",
    "slurm": "+launcher=slurm and +launcher=submitit",
    "ray": "+launcher=ray",
    "optuna": "+launcher=optuna",
    "wandb": "logger=wandb",
    "mlflow": "logger=mlflow",
}
#: Uploads of Lightning that were malicious; they must not even be imported.
_MALICIOUS = ("2.6.2", "2.6.3")
_LIGHTNING = ("pytorch-lightning", "lightning")
#: The release of OmegaConf that belongs to a release of Hydra.
_PAIRS = {"1.3": "2.3", "1.4": "2.4"}
_GIB = 2**30

Config = Mapping[str, Any]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_python(_: Config) -> Iterator[Finding]:
    """Python and lrkit."""
    from packaging.specifiers import SpecifierSet

    here = f"lrkit {_version('lrkit')}, Python {platform.python_version()} ({sys.executable})"
    accepted = metadata.metadata("lrkit")["Requires-Python"]
    if SpecifierSet(accepted).contains(platform.python_version(), prereleases=True):
        yield Finding("ok", here)
    else:
        yield Finding("problem", f"{here}: lrkit needs Python {accepted}")


def check_packages(_: Config) -> Iterator[Finding]:
    """The packages that lrkit requires."""
    from packaging.requirements import Requirement

    found = []
    for requirement in map(Requirement, metadata.requires("lrkit") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None:
            yield Finding("problem", f"{requirement.name} is not installed: pip install '{requirement}'")
        elif not requirement.specifier.contains(version, prereleases=True) and version not in _MALICIOUS:
            yield Finding("problem", f"{requirement.name} {version} is not supported: pip install '{requirement}'")
        else:
            found.append(f"{requirement.name} {version}")
    yield Finding("ok", ", ".join(found))


def check_malicious_uploads(_: Config) -> Iterator[Finding]:
    """Lightning 2.6.2 and 2.6.3, by their metadata only."""
    bad = [f"{name} {_version(name)}" for name in _LIGHTNING if _version(name) in _MALICIOUS]
    for each in bad:
        what = "is a malicious upload, which steals credentials when it is imported"
        yield Finding("problem", f"{each} {what}: pip install '{each.split()[0]}!=2.6.2,!=2.6.3', then renew them")


def check_hydra(_: Config) -> Iterator[Finding]:
    """Hydra and OmegaConf, whose releases belong together."""
    hydra, omegaconf = _version("hydra-core") or "", _version("omegaconf") or ""
    wanted = _PAIRS.get(hydra[:3])
    if wanted and omegaconf and not omegaconf.startswith(wanted):
        yield Finding("problem", f"hydra-core {hydra} needs omegaconf {wanted}, and {omegaconf} is installed")


def check_extras(_: Config) -> Iterator[Finding]:
    """The optional packages."""
    from packaging.requirements import Requirement

    complete = []
    optional = [each for each in map(Requirement, metadata.requires("lrkit") or ()) if each.marker is not None]
    for extra, use in EXTRAS.items():
        needed = [each for each in optional if each.marker and each.marker.evaluate({"extra": extra})]
        missing = [each.name for each in needed if _version(each.name) is None]
        if missing:
            needs = f"{'need' if ',' in use or ' and ' in use else 'needs'} {', '.join(missing)}"
            yield Finding("note", f"{use} {needs}: pip install 'lrkit[{extra}]'")
        else:
            complete.append(extra)
    if complete:
        yield Finding("ok", f"extras: {', '.join(complete)}")


def check_torch(_: Config) -> Iterator[Finding]:
    """torch, its build and its devices."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    if torch.version.cuda and not torch.cuda.is_available():
        yield Finding("note", f"torch {torch.__version__} ({build}), but it finds no CUDA device: check nvidia-smi")
    else:
        yield Finding("ok", f"torch {torch.__version__} ({build})")
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        yield Finding("ok", f"cuda:{i} {device.name}, {device.total_memory / _GIB:.0f} GiB")


def check_device_and_precision(config: Config) -> Iterator[Finding]:
    """The device, number of processes and precision of a run, by Lightning's own choice."""
    if any(_version(name) in _MALICIOUS for name in _LIGHTNING):
        yield Finding("note", "device and precision are not checked: Lightning must not be imported")
        return
    import logging
    import warnings

    from lrkit.config.instantiate import use_lightning

    if config:
        use_lightning(config)
    from lrkit.lightning.imports import PACKAGE
    from lrkit.lightning.trainer_objects import trainer_of

    names = ("accelerator", "devices", "num_nodes", "precision", "strategy", "plugins")
    options = {name: value for name, value in config.get("trainer", {}).items() if name in names}
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    for logger in loggers:  # Lightning says the same in more lines
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trainer_of(options, config.get("trust", ()), logger=False, enable_progress_bar=False)
    device, precision = trainer.strategy.root_device, trainer.precision
    world = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    yield Finding("ok", f"a run uses {device}{world}, precision {precision} ({PACKAGE})")
    if device.type == "cuda" and "bf16" in str(precision):
        import torch

        if not torch.cuda.is_bf16_supported(including_emulation=False):
            yield Finding("note", f"{device} has no bf16 units: precision {precision} is emulated; use 16-mixed")


def check_optimizer(config: Config) -> Iterator[Finding]:
    """The implementation that lrkit chooses for the optimizer: fused, foreach or plain loops."""
    import torch

    from lrkit.optim.factory import build_optimizer

    node = dict(config.get("optimizer") or {"_target_": "torch.optim.SGD"})
    target, _ = str(node.pop("_target_")), node.pop("lr", None)
    device = "cuda" if torch.cuda.is_available() and config.get("trainer", {}).get("accelerator") != "cpu" else "cpu"
    weight = torch.nn.Parameter(torch.zeros(2, 2, device=device))
    optimizer = build_optimizer(target, node, [{"params": [weight], "name": "default", "lr": 0.1}])
    chosen = optimizer.param_groups[0]
    kind = "fused" if chosen.get("fused") else "plain loops" if chosen.get("foreach") is False else "its default"
    yield Finding("ok", f"{type(optimizer).__name__} on {device}: {kind}")


def check_matrix_multiplication(config: Config) -> Iterator[Finding]:
    """TF32, on a GPU that has it."""
    import torch

    if not torch.cuda.is_available():
        return
    from lrkit.lightning.matmul_precision import has_tf32

    precision = torch.get_float32_matmul_precision()
    tf32 = f"float32 matrix multiplication: {precision} (TF32 {'off' if precision == 'highest' else 'on'})"
    convolution = f"convolutions: TF32 {'on' if torch.backends.cudnn.allow_tf32 else 'off'}"
    if precision == "highest" and has_tf32(torch.device("cuda")):
        key = "matmul_precision" in config.get("trainer", {})
        how = "trainer.matmul_precision=high" if key else "torch.set_float32_matmul_precision('high')"
        yield Finding("note", f"{tf32}, {convolution}; faster, and less exact: {how}")
    else:
        yield Finding("ok", f"{tf32}, {convolution}")


def check_threads(_: Config) -> Iterator[Finding]:
    """Threads of torch, and the cores of this process."""
    import torch

    from lrkit.base.process_pool import count_cores

    cores = count_cores()
    limit = os.environ.get("OMP_NUM_THREADS")
    said = f"{torch.get_num_threads()} threads on {cores} cores" + (f" (OMP_NUM_THREADS={limit})" if limit else "")
    if torch.get_num_threads() > cores:
        yield Finding("note", f"{said}: more threads than cores are slow; set OMP_NUM_THREADS={cores}")
    else:
        yield Finding("ok", said)


def check_tensorboard(_: Config) -> Iterator[Finding]:
    """Whether TensorBoard starts, in a process of its own."""
    command = [sys.executable, "-P", "-m", "tensorboard.main", "--version_tb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        yield Finding("ok", f"TensorBoard {done.stdout.split()[-1]} starts")
    else:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Finding("problem", f"TensorBoard does not start, so lrkit board fails: {said}")


def check_output_folder(_: Config) -> Iterator[Finding]:
    """Whether runs can be written to the current folder, and how much space it has."""
    folder = Path("outputs") if Path("outputs").is_dir() else Path(".")
    where = (Path.cwd() / "outputs").as_posix()
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Finding("problem", f"{where} cannot be written to ({error.strerror})")
        return
    free = shutil.disk_usage(folder).free / _GIB
    mark: Literal["ok", "note"] = "ok" if free >= 1 else "note"
    yield Finding(mark, f"{where} can be written to, {free:.1f} GiB free")


def check_shared_memory(_: Config) -> Iterator[Finding]:
    """Shared memory, which the workers of a data loader need; containers often have 64 MiB."""
    folder = Path("/dev/shm")
    if folder.is_dir() and (size := shutil.disk_usage(folder).total / _GIB) < 1:
        yield Finding("note", f"/dev/shm has {size * 1024:.0f} MiB: workers of a data loader may fail (--shm-size=2g)")


def check_launcher(_: Config) -> Iterator[Finding]:
    """The launcher that started this process: torchrun, srun, mpirun and others."""
    from lrkit.base.launcher_environment import detect_launch

    launch = detect_launch()
    if launch is not None:
        yield Finding("ok", str(launch))
    elif job := os.environ.get("SLURM_JOB_ID"):
        yield Finding("note", f"SLURM job {job}, but not by srun: a run is one process; begin it with srun lrkit train")
    elif not re.fullmatch(r"|1", os.environ.get("WORLD_SIZE", "")):
        yield Finding("note", f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set, but no launcher is recognised")
    else:
        yield Finding("ok", "no launcher (torchrun, srun, mpirun): lrkit starts the processes of a run itself")


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    check_python, check_packages, check_malicious_uploads, check_hydra, check_extras, check_torch,
    check_device_and_precision, check_optimizer, check_matrix_multiplication, check_threads, check_tensorboard,
    check_output_folder, check_shared_memory, check_launcher,
)  # fmt: skip

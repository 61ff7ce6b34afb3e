"""`lrkit train`, `lrkit compare` and `lrkit predict` as functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrkit.api.arguments import class_path
from lrkit.base import lightning_package
from lrkit.base.command_line import CONFIG_FILE, quote_path
from lrkit.base.errors import ConfigError

if TYPE_CHECKING:
    from lrkit.comparison.ranking import Comparison
    from lrkit.lightning.imports import LightningDataModule, LightningModule
    from lrkit.planning.plan import Plan
    from lrkit.prediction.prediction import Prediction
    from lrkit.training.run import FinishedRun

__all__ = ["compare", "predict", "train"]


def compare(
    *folders: Path | str, metric: str | None = None, by: str = "best", out: Path | str | None = None
) -> Comparison:
    """Read finished runs, group them by their settings, and rank the settings, like `lrkit compare`.

    ``comparison.settings`` has the settings, best first, and ``comparison.notes`` sentences about the ranking.

    Args:
        folders: folders of runs or of sweeps.
        metric: the metric of the ranking; None: the metric that the runs monitored. Accuracy, F1 and AUC: higher is
            better.
        by: ``best`` or ``final``: the value of each run.
        out: the folder for ``results.csv``, ``results.md``, ``compare.html`` and pictures; None: no files.

    Raises:
        ConfigError: no folder, a folder without runs, or a metric that no run has.
    """
    if not folders:
        raise ConfigError("folders", "must name at least one folder of runs")
    from lrkit.cli.output_folders import make_writable
    from lrkit.comparison import ranking, report

    comparison = ranking.compare([Path(folder) for folder in folders], metric, by)
    if out is not None:
        make_writable(Path(out), "out")
        _, notes = report.write_report(comparison, Path(out))
        comparison.notes.extend(notes)
    return comparison


def predict(
    *folders: Path | str,
    overrides: Sequence[str] = (),
    plans: Mapping[str, Plan] | None = None,
    out: Path | str | None = None,
    config_dir: Path | str | None = None,
) -> Prediction:
    """Rank schedules that were not trained, by the loss curves of finished runs of one task, like `lrkit predict`.

    ``print(prediction)`` prints the table, and ``prediction.predicted`` has each schedule with its loss and interval.

    Args:
        folders: folders of runs or of sweeps: one run at least that holds its rate, and one of a schedule that decays.
        overrides: what changes against the first run: ``["schedule=cosine,wsd", "horizon.steps=2000"]``.
        plans: name -> plan, for plans of your own to predict too.
        out: the folder for ``predict.json``, ``compare.html`` and ``predict.png``; None: no files.
        config_dir: a folder with the caller's own groups and options.

    Raises:
        ConfigError: there is nothing to predict, or the runs do not say enough.
    """
    from lrkit.cli.output_folders import make_writable
    from lrkit.prediction.candidates import list_candidates
    from lrkit.prediction.prediction import predict_losses
    from lrkit.prediction.recorded_runs import load_recorded_runs
    from lrkit.prediction.run_check import check_runs

    if not folders:
        raise ConfigError("folders", "must name the folders of finished runs")
    runs = load_recorded_runs(folders)
    check_runs(runs)
    asked = dict(plans or {})
    if overrides or not asked:
        own = None if config_dir is None else str(config_dir)
        asked = {**list_candidates(runs[0].folder, overrides, own), **asked}
    prediction = predict_losses(runs, asked)
    if out is not None:
        from lrkit.comparison.predicted_runs import write_prediction

        make_writable(Path(out), "out")
        config = runs[0].plan.config
        _, notes = write_prediction(prediction, [Path(folder) for folder in folders], Path(out), config=config)
        prediction = dataclasses.replace(prediction, notes=(*prediction.notes, *notes))
    return prediction


def train(
    *overrides: str,
    folder: Path | str | None = None,
    module: LightningModule | None = None,
    data: LightningDataModule | None = None,
    config: Path | str | None = None,
    config_dir: Path | str | None = None,
    trust: Sequence[str] = (),
    quiet: bool = False,
) -> FinishedRun:
    """Train one run in this process, like `lrkit train`.

    The returned run has ``status``, ``folder``, ``plan``, and the metrics ``final`` and ``best``. A run that diverges
    raises no error: it is returned with ``status == "diverged"``.

    Args:
        overrides: as on the command line: ``"schedule=cosine"``, ``"trainer.max_epochs=5"``, ``"resume.path=..."``.
        folder: the run's folder; None: a new folder in ``outputs/runs``, or the folder of ``resume.path``.
        module: a LightningModule in place of ``model=...``; it is trained in place.
        data: a LightningDataModule in place of ``data=...``; None: the loaders of ``module``.
        config: a file with the whole config of a run, in place of the defaults, such as its ``config.yaml``.
        config_dir: a folder with the caller's own groups and options.
        trust: packages whose classes files may name.
        quiet: print nothing.

    Raises:
        ConfigError: the config is invalid; nothing was trained.
        RunError: the training failed.
        SearchError: the search of ``optimizer.lr=auto`` found no rate.
    """
    if module is not None or data is not None:
        lightning_package.use_package({"module": type(module), "data": type(data)})
    from lrkit.cli.arguments import refuse_sweep_keys
    from lrkit.cli.resumed_run import find_continued_folder, load_resumed_config
    from lrkit.config import compose as configs
    from lrkit.config.instantiate import use_lightning

    for word in overrides:
        if word.lstrip("+~").startswith("hydra"):
            raise ConfigError(word.partition("=")[0], "is not accepted by lrkit.train: use the argument folder=...")
    load_resumed_config(overrides)
    words = [*([] if config is None else [f"{CONFIG_FILE}={quote_path(str(config))}"]), *overrides]
    composed = configs.compose(words, None if config_dir is None else str(config_dir), trust)
    composed = _set_object_classes(composed, overrides, module, data)
    (configs.check if composed["resume"]["path"] is None else configs.check_values)(composed)
    refuse_sweep_keys(overrides, "one run")
    place = _create_folder(folder, find_continued_folder(composed["resume"]))
    use_lightning(composed)
    from lrkit.training.run import run_training

    return run_training(composed, place, quiet=quiet, module=module, data=data)


def _set_object_classes(config: dict[str, Any], overrides: Sequence[str], module: Any, data: Any) -> dict[str, Any]:
    """Return the config with the class paths of the caller's objects.

    Raises:
        ConfigError: an override of an object that the caller gave, or several processes.
    """
    given = {"model": module, "data": data} if module is not None or data is not None else {}
    for group, thing in given.items():
        own = [word for word in overrides if word.lstrip("+~").partition("=")[0].partition(".")[0] == group]
        if own and thing is not None:
            raise ConfigError(own[0].partition("=")[0], f"must not be set together with the argument {group}")
    if not given:
        return config
    if config["optimizer"].get("lr") == "auto":  # the short runs of the search would train the caller's own module
        must = "must be a number together with the arguments module and data: lrkit.find(module, ...) measures it"
        raise ConfigError("optimizer.lr", must, "auto")
    if _count_processes(config) > 1:
        raise ConfigError(
            "trainer.devices",
            "must be 1 with the arguments module and data: lrkit cannot send objects to other processes",
        )
    trust = list(config["trust"])
    if module is not None:
        config = {**config, "model": {"_target_": class_path(module)}}
        trust.append(class_path(module))
        if data is None:
            config["data"] = {"_target_": "lrkit.data.ModuleLoaders", "batch_size": None, "train_samples": None}
    if data is not None:
        config = {**config, "data": {"_target_": class_path(data), "batch_size": getattr(data, "batch_size", None)}}
        trust.append(class_path(data))
    return {**config, "trust": trust}


def _count_processes(config: dict[str, Any]) -> int:
    """Return the number of processes of a run."""
    from lrkit.config import compose as configs

    return configs.world_of(config["trainer"])[0]


def _create_folder(folder: Path | str | None, continued: Path | None) -> Path:
    """Create the run's folder and return it."""
    from lrkit.cli.output_folders import check_holds_no_run, create_folder, make_writable

    if continued is not None:
        if folder is not None and Path(folder).resolve() != continued.resolve():
            raise ConfigError(
                "folder", "must be None with resume.path: the run continues in its own folder", str(folder)
            )
        make_writable(continued, "resume.path")
        return continued
    if folder is None:
        return Path(create_folder(Path("outputs") / "runs"))
    make_writable(Path(folder), "folder")
    check_holds_no_run(Path(folder))
    return Path(folder)

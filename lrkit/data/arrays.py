"""The user's own arrays: npz and csv files."""

from __future__ import annotations

from lrkit.base.errors import ConfigError
from lrkit.config.missing_values import missing_policy
from lrkit.data.file_readers import read_csv, read_npz
from lrkit.data.in_memory import Array, InMemoryData, Splits, assemble_splits, standardise_splits
from lrkit.data.options import check_flag, check_fractions, check_path
from lrkit.data.tensor_conversion import kind_of_targets, to_floats

__all__ = ["Arrays"]


class Arrays(InMemoryData):
    """Your own numbers: an ``.npz`` of arrays or a ``.csv`` table.

    Targets that are integers or strings are classes; targets that are floats are regressed on (mse); the plan says
    which. Where there is no validation or test part, one is held out from the training samples, always the same.

    Args:
        path: ``.npz`` with ``x`` and ``y``, or ``x_train``, ``y_train`` and perhaps ``x_val``, ``x_test`` and
            so on; or ``.csv``, where a first line of names is recognised.
        target: The column of a ``.csv`` to predict. None: the last one.
        targets: ``classes`` or ``numbers``, where it is not to be told by how they are written.
        missing: What to do with samples that miss a value (nan, NA, null, an empty cell, ...): ``refuse`` the file,
            ``drop`` them, or ``keep`` such words as the names of classes that they are.
        standardise: Subtract each feature's mean over the training samples, divide by its standard deviation.
        val_fraction: Share of all training samples to validate on.
        test_fraction: Share of all training samples to test on.
    """

    origin = "data.path"

    def __init__(
        self,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        train_samples: int | None = None,
        path: str | None = None,
        target: str | None = None,
        targets: str = "auto",
        missing: str = "refuse",
        standardise: bool = False,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples)
        self.path = check_path("data.path", path, "an .npz or .csv file")
        if self.path.suffix not in (".npz", ".csv"):
            raise ConfigError("data.path", "must end in .npz or .csv", str(self.path))
        if target is not None and self.path.suffix == ".npz":
            must = "must be null with an .npz as data.path, whose array y has the targets: it names a column of a .csv"
            raise ConfigError("data.target", must, target)
        self.target, self.targets, self.missing = target, kind_of_targets(targets), missing_policy(missing)
        self.standardise = check_flag("data.standardise", standardise)
        self.fractions = check_fractions(val_fraction, test_fraction)

    def load(self) -> Splits:
        try:
            if self.path.suffix == ".npz":
                table = read_npz(self.path, self.missing)
            else:
                table = read_csv(self.path, self.target, self.targets, self.missing)
        except OSError as error:
            raise ConfigError("data.path", f"must be a readable file: {error}", str(self.path)) from error
        tensors = {name: (to_floats(x, self.origin), y) for name, (x, y) in table.parts.items()}
        splits = assemble_splits(tensors, self.origin, *self.fractions, self.targets)
        self.notes = (targets_taken_for(table.target, table.parts["train"][1], splits.classes),)
        if table.dropped:
            self.notes += (f"samples left out, for they miss a value: {table.dropped} (data.missing=drop)",)
        return standardise_splits(splits) if self.standardise else splits


def targets_taken_for(name: str, y: Array, classes: int | None) -> str:
    """What targets were taken for, by how they are written, in words."""
    if classes is None:
        return f"targets: numbers of {name} (mean squared error); data.targets=classes makes classes of them"
    numbers = "" if y.dtype.kind in "US" else "; data.targets=numbers makes a regression of them"
    return f"targets: {classes} classes of {name} (cross entropy){numbers}"

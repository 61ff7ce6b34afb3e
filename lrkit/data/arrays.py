"""The user's own arrays, from npz and csv files."""

from __future__ import annotations

from lrkit.base.errors import ConfigError
from lrkit.config.missing_value_spellings import missing_policy
from lrkit.data.file_readers import read_csv, read_npz
from lrkit.data.in_memory import Array, InMemoryData, Splits, assemble_splits, standardise_splits
from lrkit.data.option_checks import check_exists, check_flag, check_fractions, check_path
from lrkit.data.tensor_conversion import check_target_kind, to_floats

__all__ = ["Arrays"]


class Arrays(InMemoryData):
    """The user's own numbers: an ``.npz`` file of arrays or a ``.csv`` table.

    Integer and string targets are classes; float targets are regressed on (mean squared error). The plan says which.
    Without a validation or test part, one is held out from the training samples: the same samples in every run.

    Args:
        path: An ``.npz`` file with ``x`` and ``y``, or with ``x_train`` and ``y_train`` and optionally ``x_val``,
            ``y_val``, ``x_test`` and ``y_test``; or a ``.csv`` file, whose first line may be a header.
        target: The column of a ``.csv`` file to predict. None: the last column.
        targets: ``classes`` or ``numbers``. auto: decided by the type of the targets.
        missing: How samples with a missing value (nan, NA, null, an empty cell, ...) are handled: ``refuse`` the
            file, ``drop`` the samples, or ``keep`` such words as names of classes.
        standardise: Subtract each feature's mean and divide by its standard deviation, both over the training samples.
        val_fraction: Share of all training samples to hold out for validation.
        test_fraction: Share of all training samples to hold out for the test.
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
        placement: str = "auto",
    ) -> None:
        super().__init__(batch_size, seed, drop_last, train_samples, placement)
        self.path = check_path("data.path", path, "an .npz or .csv file")
        if self.path.suffix not in (".npz", ".csv"):
            raise ConfigError("data.path", "must end in .npz or .csv", str(self.path))
        if target is not None and self.path.suffix == ".npz":
            must = "must be null for an .npz file, whose array y has the targets: it names a column of a .csv file"
            raise ConfigError("data.target", must, target)
        self.target, self.targets, self.missing = target, check_target_kind(targets), missing_policy(missing)
        self.standardise = check_flag("data.standardise", standardise)
        self.fractions = check_fractions(val_fraction, test_fraction)

    def check_source(self) -> None:
        check_exists(self.path)

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
        self.notes = (describe_targets(table.target, table.parts["train"][1], splits.classes),)
        if table.dropped:
            self.notes += (f"samples dropped because of a missing value: {table.dropped} (data.missing=drop)",)
        return standardise_splits(splits) if self.standardise else splits


def describe_targets(name: str, y: Array, classes: int | None) -> str:
    """A line for the plan: whether the targets are numbers or classes, and the option that changes it."""
    if classes is None:
        return f"targets: numbers of {name} (mean squared error); with data.targets=classes they are classes"
    numbers = "" if y.dtype.kind in "US" else "; with data.targets=numbers they are numbers"
    return f"targets: {classes} classes of {name} (cross entropy){numbers}"

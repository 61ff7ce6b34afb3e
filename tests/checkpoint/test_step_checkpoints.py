"""A run that dies and is resumed from the checkpoint of a step equals the run that did not.

Also where a validation or the end of the epoch follows the step: with six batches in an epoch, steps 3 and 6.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from interrupted_runs import full_and_resumed, ignored
from recorded_rates import Recorded

#: A metric that is no better by half in any validation: each reduces the rate.
REDUCES = ("plateau=reduce", "plateau.patience=0", "plateau.threshold=0.5")


@ignored
@pytest.mark.parametrize(
    ("at", "words"),
    [
        (6, ()),
        (6, ("plateau.monitor=train/loss",)),
        (3, ("trainer.val_check_interval=0.5",)),
        pytest.param(6, ("trainer.val_check_interval=0.5",), marks=pytest.mark.slow),
        pytest.param(6, ("trainer.check_val_every_n_epoch=2",), marks=pytest.mark.slow),
        pytest.param(6, ("+callbacks.every.monitor=val/loss",), marks=pytest.mark.slow),
        pytest.param(
            3, ("+callbacks.every.monitor=val/loss", "trainer.val_check_interval=0.5"), marks=pytest.mark.slow
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_validation_of_its_step_is_not_lost(
    tmp_path: Path, recorded: Recorded, at: int, words: tuple[str, ...]
) -> None:
    full_and_resumed(tmp_path, recorded, at, *REDUCES, *words)

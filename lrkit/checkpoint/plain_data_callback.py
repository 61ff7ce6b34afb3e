"""Checkpoints that can be read: what is no plain data is made so before it is written, and the reader is asked in time.

What stands in a checkpoint as text is told once: of hyper-parameters before the training, of what hooks put there at
the first checkpoint. (Hooks are not called ahead: ``on_save_checkpoint`` may do more than save.) What the reader
refuses all the same, a tensor of a kind of its own, ends the run there and then, and not after it was killed.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from lrkit.base.errors import ConfigError, Diverged, RunError, name_some
from lrkit.base.event_log import EventLog
from lrkit.checkpoint.object_lookup import live_object
from lrkit.checkpoint.plain_data_decoder import from_plain_data
from lrkit.checkpoint.plain_data_encoder import to_plain_data
from lrkit.checkpoint.plain_data_format import Content, Path, Replaced
from lrkit.checkpoint.weights_only_check import find_unreadable
from lrkit.lightning.classes import Callback, LightningModule, Trainer
from lrkit.lightning.module import step_of

__all__ = ["PlainDataCallback"]

_MANY = 6  # names that still make one readable line
#: Whose classes are no part of the user's program.
_OURS = {"lrkit", "pytorch_lightning", "lightning", "lightning_fabric", "torch", "builtins"}


class PlainDataCallback(Callback):
    """Lets a trainer write only what it can read, by whatever plugin or strategy it writes.

    Args:
        journal: where it is taken down what is kept as text.
        say: told that in a line.
    """

    def __init__(self, journal: EventLog | None = None, say: Callable[[str], None] = lambda line: None) -> None:
        self.journal, self.say = journal or EventLog(None), say
        self.told: set[str] = set()
        self.texts: list[str] = []  # what a run that goes on got as text
        self.saved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        strategy = trainer.strategy
        if not isinstance(strategy.save_checkpoint, partial):
            save = partial(self._save, trainer, strategy.save_checkpoint)
            load = partial(self._load, trainer, strategy.load_checkpoint)
            strategy.save_checkpoint, strategy.load_checkpoint = save, load  # type: ignore[method-assign]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        owners = [(owner.CHECKPOINT_HYPER_PARAMS_KEY, owner.hparams) for owner in _owners(trainer)]
        # As Lightning will save them: those that are no config of OmegaConf's, in a dict.
        given = {key: dict(own) if isinstance(own, dict) else own for key, own in owners if own}
        content = to_plain_data(given, (), _packages(trainer))
        if wrong := find_unreadable(content.checkpoint):
            key, _, name = wrong.partition(".")
            ignore = f"save_hyperparameters(ignore=[{name.partition('.')[0]!r}])"
            raise ConfigError(
                "data" if "datamodule" in key else "model",
                f"has a hyper-parameter that no checkpoint can be read with, {wrong}: leave it out, by {ignore}",
            )
        self._tell(trainer, content)

    def _save(
        self, trainer: Trainer, save: Callable[..., None], checkpoint: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        content = to_plain_data(checkpoint, _required(trainer), _packages(trainer))
        if not self.saved:
            if wrong := find_unreadable(content.checkpoint):
                raise RunError(f"a checkpoint with {wrong} could not be read again, so the run ends here, at its first")
            self._tell(trainer, content)
            self.saved = True
        save(content.checkpoint, *args, **kwargs)

    def _load(self, trainer: Trainer, load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def live(at: Path, text: Any) -> tuple[Any] | None:
            found = live_object(trainer, at, text)
            if found is None:
                self.texts.append(".".join(map(str, at)))
            return found

        return from_plain_data(load(*args, **kwargs), _packages(trainer), live)

    @contextmanager
    def explaining(self, trainer: Trainer) -> Iterator[None]:
        """Within it, what a hook raises that could not use the checkpoint is told so, with what it got as text."""
        try:
            yield
        except Exception as error:
            who = _who_loaded(error, [*_owners(trainer), *trainer.callbacks])  # type: ignore[attr-defined]
            if who is None or isinstance(error, ConfigError | RunError | Diverged):
                raise
            texts = f", where it got a text for {name_some(self.texts, _MANY)}" if self.texts else ""
            must = f"cannot be resumed: {who} raised {type(error).__name__} ({error}){texts}"
            raise ConfigError("resume.path", f"{must}; resume.policy=restart takes the weights alone") from error

    def _tell(self, trainer: Trainer, content: Content) -> None:
        new = [each for each in content.apart if not each.again and each.name not in self.told]
        self.told |= {each.name for each in new}
        if not new or not trainer.is_global_zero:
            return
        line = f"checkpoints keep as text what is no plain data: {_listed(new)}"
        required = _required(trainer)
        if missing := [f"{each.at[-1]}=..." for each in new if each.at in required]:
            line += f"; load_from_checkpoint needs {', '.join(missing)}"
        if lost := [each.name for each in new if each.text and live_object(trainer, each.at, each.text) is None]:
            line += f"; a run that goes on gets {name_some(lost, _MANY)} as that text"
        if all(entry["why"] != line for entry in self.journal.entries):  # as the hyper-parameters of a resumed run are
            self.journal.add(step_of(trainer), "checkpoint", line)
        self.say(f"lrkit: {line}")


def _owners(trainer: Trainer) -> list[Any]:
    """Who may have saved hyper-parameters."""
    datamodule = getattr(trainer, "datamodule", None)
    return [trainer.lightning_module, *([] if datamodule is None else [datamodule])]


def _packages(trainer: Trainer) -> set[str]:
    """The packages of the user's program: of the module, its data, and the callbacks that take part."""
    parts = [*_owners(trainer), *trainer.callbacks]  # type: ignore[attr-defined]
    return {type(part).__module__.partition(".")[0] for part in parts} - _OURS


def _required(trainer: Trainer) -> list[Path]:
    """Hyper-parameters that their class must be given: without one, it says so; with a text, it would take that."""
    places: list[Path] = []
    for owner in _owners(trainer):
        arguments = inspect.signature(type(owner).__init__).parameters.values()
        must = (each.name for each in arguments if each.default is each.empty and each.kind is not each.VAR_KEYWORD)
        places += [(owner.CHECKPOINT_HYPER_PARAMS_KEY, name) for name in must]
    return places


def _who_loaded(error: Exception, owners: Sequence[Any]) -> str | None:
    """The hook of the user that raised an error on a checkpoint, and its owner; None if there is none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name, owner = frame.f_code.co_name, frame.f_locals.get("self")
        if any(owner is each for each in owners) and (
            name == "on_load_checkpoint" or (name == "load_state_dict" and not isinstance(owner, LightningModule))
        ):
            return f"{type(owner).__name__}.{name}"
    return None


def _listed(apart: list[Replaced]) -> str:
    """The names, and what each was."""
    return name_some([f"{each.name} ({each.what})" for each in apart], _MANY)

"""The callback that converts each checkpoint to plain data before it is written, and back after it is read.

lrkit reports each value that a checkpoint stores as a text once: hyper-parameters before the training, values of hooks
at the first checkpoint. (lrkit does not call ``on_save_checkpoint`` earlier, because it may do more than save.) If
``torch.load`` refuses a value in spite of that, such as a tensor of an unknown subclass, the run ends at its first
checkpoint, and not at its first resume.
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
from lrkit.checkpoint.placeholder_lookup import find_live_object
from lrkit.checkpoint.plain_data_decoder import from_plain_data
from lrkit.checkpoint.plain_data_encoder import to_plain_data
from lrkit.checkpoint.plain_data_format import Content, Path, Replaced
from lrkit.checkpoint.weights_only_check import find_unreadable
from lrkit.lightning.imports import Callback, LightningModule, Trainer
from lrkit.lightning.module import step_of

__all__ = ["PlainDataCallback"]

_MANY = 6  # names that still make one readable line
#: Packages that do not belong to the user's program.
_OURS = {"lrkit", "pytorch_lightning", "lightning", "lightning_fabric", "torch", "builtins"}


class PlainDataCallback(Callback):
    """Converts checkpoints to plain data before a trainer writes them, for any plugin and strategy.

    Args:
        event_log: the event log, for the values that are stored as a text.
        say: called with the same line for the user.
    """

    def __init__(self, event_log: EventLog | None = None, say: Callable[[str], None] = lambda line: None) -> None:
        self.event_log, self.say = event_log or EventLog(None), say
        self.told: set[str] = set()
        self.texts: list[str] = []  # names that the resumed run got as a text
        self.saved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        strategy = trainer.strategy
        if not isinstance(strategy.save_checkpoint, partial):
            save = partial(self._save_as_plain_data, trainer, strategy.save_checkpoint)
            load = partial(self._load_plain_data, trainer, strategy.load_checkpoint)
            strategy.save_checkpoint, strategy.load_checkpoint = save, load  # type: ignore[method-assign]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        owners = [(owner.CHECKPOINT_HYPER_PARAMS_KEY, owner.hparams) for owner in _list_owners(trainer)]
        # As Lightning saves them: in a dict, unless they are a config of OmegaConf.
        given = {key: dict(own) if isinstance(own, dict) else own for key, own in owners if own}
        content = to_plain_data(given, (), _find_packages(trainer))
        if wrong := find_unreadable(content.checkpoint):
            key, _, name = wrong.partition(".")
            ignore = f"save_hyperparameters(ignore=[{name.partition('.')[0]!r}])"
            raise ConfigError(
                "data" if "datamodule" in key else "model",
                f"has a hyper-parameter that torch.load(weights_only=True) cannot read, {wrong}: use {ignore}",
            )
        self._report_texts(trainer, content)

    def _save_as_plain_data(
        self, trainer: Trainer, save: Callable[..., None], checkpoint: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        content = to_plain_data(checkpoint, _list_required(trainer), _find_packages(trainer))
        if not self.saved:
            if wrong := find_unreadable(content.checkpoint):
                raise RunError(
                    f"the first checkpoint contains {wrong}, which torch.load(weights_only=True) cannot read: remove it"
                    " from on_save_checkpoint"
                )
            self._report_texts(trainer, content)
            self.saved = True
        save(content.checkpoint, *args, **kwargs)

    def _load_plain_data(self, trainer: Trainer, load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def live(at: Path, text: Any) -> tuple[Any] | None:
            found = find_live_object(trainer, at, text)
            if found is None:
                self.texts.append(".".join(map(str, at)))
            return found

        return from_plain_data(load(*args, **kwargs), _find_packages(trainer), live)

    @contextmanager
    def explaining(self, trainer: Trainer) -> Iterator[None]:
        """Within this context, an error of a loading hook becomes a ``ConfigError`` that lists the texts it got."""
        try:
            yield
        except Exception as error:
            who = _find_failed_hook(error, [*_list_owners(trainer), *trainer.callbacks])  # type: ignore[attr-defined]
            if who is None or isinstance(error, ConfigError | RunError | Diverged):
                raise
            texts = f"; it got texts in place of {name_some(self.texts, _MANY)}" if self.texts else ""
            must = f"cannot be resumed: {who} raised {type(error).__name__} ({error}){texts}"
            raise ConfigError("resume.path", f"{must}; resume.policy=restart restores only the weights") from error

    def _report_texts(self, trainer: Trainer, content: Content) -> None:
        new = [each for each in content.replaced if not each.again and each.name not in self.told]
        self.told |= {each.name for each in new}
        if not new or not trainer.is_global_zero:
            return
        line = f"checkpoints store as a text: {_join_names(new)}"
        required = _list_required(trainer)
        if missing := [f"{each.at[-1]}=..." for each in new if each.at in required]:
            line += f"; load_from_checkpoint needs {', '.join(missing)}"
        if lost := [each.name for each in new if each.text and find_live_object(trainer, each.at, each.text) is None]:
            line += f"; a resumed run gets {name_some(lost, _MANY)} as that text"
        if all(entry["why"] != line for entry in self.event_log.entries):  # a resumed run has the line already
            self.event_log.add(step_of(trainer), "checkpoint", line)
        self.say(f"lrkit: {line}")


def _list_owners(trainer: Trainer) -> list[Any]:
    """Return the objects that may have saved hyper-parameters: the module and its data module."""
    datamodule = getattr(trainer, "datamodule", None)
    return [trainer.lightning_module, *([] if datamodule is None else [datamodule])]


def _find_packages(trainer: Trainer) -> set[str]:
    """Return the packages of the user's program: those of the module, the data module and the callbacks."""
    parts = [*_list_owners(trainer), *trainer.callbacks]  # type: ignore[attr-defined]
    return {type(part).__module__.partition(".")[0] for part in parts} - _OURS


def _list_required(trainer: Trainer) -> list[Path]:
    """Return the places of required arguments: a class refuses a missing one, but would accept a text."""
    places: list[Path] = []
    for owner in _list_owners(trainer):
        arguments = inspect.signature(type(owner).__init__).parameters.values()
        must = (each.name for each in arguments if each.default is each.empty and each.kind is not each.VAR_KEYWORD)
        places += [(owner.CHECKPOINT_HYPER_PARAMS_KEY, name) for name in must]
    return places


def _find_failed_hook(error: Exception, owners: Sequence[Any]) -> str | None:
    """Return the name of the user's loading hook that raised an error; None if there is none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name, owner = frame.f_code.co_name, frame.f_locals.get("self")
        if any(owner is each for each in owners) and (
            name == "on_load_checkpoint" or (name == "load_state_dict" and not isinstance(owner, LightningModule))
        ):
            return f"{type(owner).__name__}.{name}"
    return None


def _join_names(replaced: list[Replaced]) -> str:
    """Return the names of values, each with its type."""
    return name_some([f"{each.name} ({each.what})" for each in replaced], _MANY)

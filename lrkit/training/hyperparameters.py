"""The hyper-parameters of a run, as TensorBoard's HParams tab shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lrkit.planning.optimizer_tracks import KEY

__all__ = ["flatten_hyperparameters"]

#: The groups that describe a run.
_SECTIONS = (
    "data", "model", "optimizer", "schedule", "warmup", "cooldown", "plateau", "batch_scaling", "weight_decay_rule",
)  # fmt: skip


def flatten_hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a run as flat scalars: runs of a sweep that changes only values have the same keys."""
    lengths = {f"trainer.{name}": config["trainer"].get(name) for name in ("max_epochs", "max_steps")}
    flat: dict[str, Any] = {"seed": config["seed"], **lengths}
    flat |= dict(_flatten_node(config[KEY], KEY))
    for section in _SECTIONS:
        node = config[section]
        flat[section] = str(node.get("_target_", node.get("rule", "none"))).rpartition(".")[2]
        for name, value in node.items():
            if name not in ("_target_", "rule") and value is not None:
                flat[f"{section}.{name}"] = value if isinstance(value, int | float | str) else str(value)
    return {name: value for name, value in flat.items() if value is not None}


def _flatten_node(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The values of a node by their dotted keys."""
    if isinstance(node, Mapping):
        for name, inner in node.items():
            yield from _flatten_node(inner, f"{key}.{name}")
    elif node is not None:
        yield key, node if isinstance(node, int | float | str) else str(node)

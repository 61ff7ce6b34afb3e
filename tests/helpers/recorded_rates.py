"""The record of an optimizer step that the fixture ``recorded`` keeps."""

from __future__ import annotations

#: For each step, the learning rate and the momentum of each parameter group, by the group's name.
Recorded = list[dict[str, tuple[float, ...]]]

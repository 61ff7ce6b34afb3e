"""What the fixture ``recorded`` keeps of each optimizer step."""

from __future__ import annotations

#: For each step, the learning rate and the momentum of each parameter group, by the group's name.
Recorded = list[dict[str, tuple[float, ...]]]

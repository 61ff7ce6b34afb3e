"""Checkpoints: their content, how lrkit reads and writes them, and how a run is resumed."""

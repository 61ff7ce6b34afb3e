"""Experiments on published claims about learning rates. ``python -m evidence`` writes docs/evidence.md."""

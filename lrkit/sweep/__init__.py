"""Sweeps: one job, in its own process, for each combination of the swept values."""

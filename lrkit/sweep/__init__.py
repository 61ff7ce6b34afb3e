"""Sweeps: every combination of the swept values as a job in a process of its own."""

"""The plan: every factor of every learning rate of a run, resolved before the run. No torch."""

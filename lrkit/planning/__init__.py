"""The plan: every factor of every learning rate of a run, resolved before anything runs. No torch."""

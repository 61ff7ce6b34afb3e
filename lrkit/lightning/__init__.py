"""Connects the plan to Lightning: modules, checks of the steps taken, and the processes of a run."""

"""Applies the plan to torch: optimizers, parameter groups, and the scheduler that writes the learning rates."""

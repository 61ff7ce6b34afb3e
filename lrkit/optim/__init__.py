"""Where the plan meets torch: optimizers, their parameter groups, and the scheduler that writes the rates."""

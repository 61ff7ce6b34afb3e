"""Actions during training: logging of learning rates and losses, the guard, the noise scale, the first batch."""

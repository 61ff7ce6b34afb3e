"""What happens during training: rates and losses logged, the guard, noise scale, the first batch checked."""

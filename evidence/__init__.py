"""The folklore about learning rates, as experiments: ``python -m evidence`` runs them and writes docs/evidence.md."""

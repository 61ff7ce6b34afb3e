"""The Hydra groups, importable so that other applications can use `pkg://lrkit.conf`."""

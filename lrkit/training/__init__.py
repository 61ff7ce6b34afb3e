"""`lrkit train`: from a config to a finished run in its folder."""

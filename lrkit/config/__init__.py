"""From YAML and the command line to a checked config, its plan, and the objects that it names. No torch."""

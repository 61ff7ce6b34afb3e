"""Where the plan meets Lightning: modules, the steps that are taken, and the processes of a run."""

"""The schedules of other libraries, and the overrides of the command line that say the same in lrkit."""

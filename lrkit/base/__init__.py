"""Used by every other package: errors, files, signals, processes, and the error report. No torch."""

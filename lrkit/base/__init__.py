"""What every other package uses: errors, files, signals, processes, and the report of a failure. No torch."""

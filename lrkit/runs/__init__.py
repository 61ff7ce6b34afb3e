"""Finished runs, read from their folders: results, event files, and the diagnosis of their curves. No torch."""

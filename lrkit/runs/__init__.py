"""Finished runs, read from their folders: results, event files, and what their curves say. No torch."""

"""Arithmetic of a run: how many images a task takes and how they lie on disk."""

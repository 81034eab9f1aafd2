"""The plans of runs: asked for, made, followed and learned from."""

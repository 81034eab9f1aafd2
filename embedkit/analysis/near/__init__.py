"""Nearly all nearest rows: inverted lists and grown graphs, with a measured recall."""

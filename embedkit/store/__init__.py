"""What lies on disk: one Zarr v3 group of layers, the image table, and commit records."""

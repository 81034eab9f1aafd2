"""Labelled xarray in and out: neighbors, graph, communities, clusters, map, probe."""

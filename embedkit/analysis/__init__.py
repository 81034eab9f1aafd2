"""Lazy xarray in, xarray out: neighbors, graph, communities, clusters, map, probe."""

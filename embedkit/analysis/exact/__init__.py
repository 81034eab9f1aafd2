"""Exact nearest rows, tile by tile, with a proof."""

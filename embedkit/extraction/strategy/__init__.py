"""The ways in which layers are computed: in one pass, by layer, from stored maps."""

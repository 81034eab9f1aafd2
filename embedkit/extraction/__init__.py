"""Images through a network into a store: one block in a task, all blocks by the driver."""

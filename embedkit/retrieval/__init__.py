"""What brings a store, its network and its images together: search and duplicates."""

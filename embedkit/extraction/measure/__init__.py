"""What a run needs and takes, measured where it will run."""

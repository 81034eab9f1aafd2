"""One block of images through its networks: what a worker does."""

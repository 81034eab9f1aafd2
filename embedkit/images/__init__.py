"""What comes in: sets of images, the order of their rows, and how pixels are read."""

"""What looks: a network by name, its layers, and exact taps of every one of them.

Importing this package loads nothing heavy. `embedkit.networks.load` is where to start.
"""

import os

# Activations are megabytes that live for a moment. Dask's workers give memory back at
# once, and getting it again page by page takes long (measured on Linux: 76 ms of an image
# through ResNet-18 with small pages, 58 with large ones). PyTorch asks this at its first
# tensor, so it is said before there is one.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

"""What looks: a network by name, its layers, and exact taps of every one of them.

Importing this package loads nothing heavy. `embedkit.networks.load` is where to start.
"""

"""The network that comes with embedkit, its data and the script that trains it."""

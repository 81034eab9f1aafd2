"""``python -m embedkit`` is the command ``embedkit``."""

from embedkit.cli.main import main

if __name__ == "__main__":
    main()

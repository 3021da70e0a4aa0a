"""The ``notes`` app: what the demo upgrades. ``app`` is its source, ``builds`` makes images."""

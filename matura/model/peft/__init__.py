"""Parameter-efficient methods as swaps of leaves: (module, config) -> module."""

"""Maps of names and settings between the core and other projects' checkpoints."""

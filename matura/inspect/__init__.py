"""Looking into a model: its attention weights, and what it expected at every token."""

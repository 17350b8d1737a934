"""Alignment: preferences, reward models, rollouts, and the losses that learn from them."""

"""Alignment: preferences and rewards turned into updates of a model."""

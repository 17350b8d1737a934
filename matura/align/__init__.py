"""Alignment: answers that are judged, rewards, and the methods that make a model write what is preferred."""

"""Matura: take a language model through its whole education, from raw text to an examined assistant."""

__version__ = "0.1.0"

"""Filters of curation: rules of published corpora, language, classifiers.

Each module has `make(**settings) -> Step`.
"""

"""Synthetic data: templates, requests from documents, answers to records, filters, and a remote teacher."""

"""Readers of document formats that need more than a line: archives of XML, notebooks, and the process they run in."""

"""Panels: what an exam looks at besides ability. Each is a module that makes a `Sheet`; `registry.py` lists them."""

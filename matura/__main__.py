"""`python -m matura` is the command `matura`."""

from matura.cli import main

main()

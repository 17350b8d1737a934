"""Conversations in people's own files: rows of several known forms to `Conversation` records.

`load` reads files, tells their form by the columns, checks every row and holds some out; nothing is guessed within a
row. See docs/stages/finetune.md for the forms.
"""

from matura.data.conversations.loading import Loaded, load

__all__ = ["Loaded", "load"]

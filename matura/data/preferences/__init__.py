"""What people or rewards prefer, in people's own files: rows of several known forms to `Ranking` records.

`loading.load` reads rankings, `prompts.load` prompts alone; `pairs.of` makes pairs of a ranking. See
docs/preferences.md for the forms.
"""

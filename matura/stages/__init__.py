"""One file per stage: a function from artifacts to an artifact."""

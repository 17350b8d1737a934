"""Configuration, artifacts, workspace, recipes and metrics: what every stage stands on. No torch here."""

"""The one transformer core, its parts as values, and where its weights come from."""

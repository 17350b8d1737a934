"""From raw files to documents: readers, extraction, personal data. No torch here."""

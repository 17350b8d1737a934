"""What people and rewards prefer: files, matching, selection."""

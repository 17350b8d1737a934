"""Exams: tasks, paired statistics, gates and the report."""

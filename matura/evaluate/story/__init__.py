"""The story of a whole run as one page: what came in, what was learned, what exams said, what it cost. No torch."""

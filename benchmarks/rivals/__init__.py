"""What the job is timed against, on which archives, and the table of it."""

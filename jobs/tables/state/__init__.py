"""What a run knows of its tables, by name: their files and the rows of `archives`."""

"""What poor films do to a package's answers."""

"""What people decide of an audit's cases: the table, what it comes to, and how far they agree."""

"""The table of a registry: its columns, records, names, sides and joints."""

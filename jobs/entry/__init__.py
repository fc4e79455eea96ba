"""The edges of every job: its command line and exit codes, its Ray cluster, its folder."""

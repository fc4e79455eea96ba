"""Sample archives for the demo: phantoms, and what else archives hold; no evidence about patients.

sample_members.py   phantoms and oddities as bytes, each with what must become of it
sample_archives.py  deals them to archives of every kind, and remembers what is where
sample_registry.py  a registry's records of them, some of them wrong
check.py     is the output what these samples must give?
"""

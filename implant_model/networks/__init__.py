"""The networks of a package: how they are built, and how they run on a device."""

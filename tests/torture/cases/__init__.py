"""The torture set: files and archives, each with what is to become of it."""

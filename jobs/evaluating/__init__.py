"""A package against labelled images: what `jobs.evaluate` is made of."""

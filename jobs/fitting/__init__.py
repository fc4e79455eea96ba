"""A training from labelled radiographs to a package: what `jobs.train` is made of."""

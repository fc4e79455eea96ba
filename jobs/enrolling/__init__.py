"""New implants from a few labelled radiographs: what `jobs.enrol` is made of."""

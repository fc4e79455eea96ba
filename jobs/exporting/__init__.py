"""Structured reports of the predictions of each study: what `jobs.export_sr` is made of."""

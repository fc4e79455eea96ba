"""What the jobs share: plan, source, stages, publish, progress."""

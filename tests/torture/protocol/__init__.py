"""A model of publication that runs, its world, and random schedules of both."""

"""Masks of implants, made automatically or by hand, and how well they agree."""

"""Decisions: pure functions from what is seen of a job to a Plan. No I/O, no clock, no randomness."""

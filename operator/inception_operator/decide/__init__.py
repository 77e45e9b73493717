"""Decisions: pure functions from what is seen of a job to a `Plan`.

No I/O, no clock, no randomness. `reconcile` is the list of steps and the place to begin.
"""

"""Checkpoints: writing, reading, and who may write."""

"""Checkpoints of a job: written in the background, in a folder or an object store, and fenced.

"Fenced" means that an attempt which was thought dead cannot write once its successor has begun.
"""

"""Weights beyond checkpoints: published, averaged, exported."""

"""The configuration of a training run: classes, parsing, checks, the catalog of models."""

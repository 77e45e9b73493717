"""Trainings of other operators as InceptionTrainings: one module per kind, ``join`` for all."""

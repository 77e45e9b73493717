"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every machine: a change is judged by what it changes. `make explore` looks for new ones.
settings.register_profile("explore", settings.get_profile("default"), derandomize=False, print_blob=True)
settings.register_profile("repeatable", derandomize=True, print_blob=True)
settings.load_profile("repeatable")

"""Training itself: build, loop, step, schedule."""

"""What a worker pod looks like, and what decisions read from one."""

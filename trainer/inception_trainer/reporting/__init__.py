"""What a run reports: its records and who takes them, its progress, its output files."""

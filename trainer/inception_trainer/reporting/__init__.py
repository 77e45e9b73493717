"""What a run tells: records, progress, output files."""

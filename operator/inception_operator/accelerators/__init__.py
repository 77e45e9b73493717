"""Accelerator profiles: one YAML row a vendor, and which devices a job's pods get."""

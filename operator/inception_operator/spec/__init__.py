"""From a custom resource to a Job: parsing and checking what a user wrote."""

"""Metrics: what a process counts, what it reads of the database, and how both are exposed."""

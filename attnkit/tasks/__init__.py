"""Domains: one folder per task, pure functions from a request to a result."""

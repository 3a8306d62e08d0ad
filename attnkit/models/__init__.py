"""Architectures, their registry and their weights."""

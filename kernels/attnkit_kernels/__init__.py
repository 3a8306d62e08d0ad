"""Operators with one definition and several implementations that agree."""

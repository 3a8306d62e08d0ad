"""Simulating sparse attention: tiles, operations, run time and milliseconds of a map before any kernel runs."""

"""Tone mapping: from linear scene light to a picture for a display."""

"""Attention research as commands that work on files."""

__version__ = "0.1.0"

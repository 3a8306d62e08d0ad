"""Errors that a person sees as one line, and the exit codes of the command line."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_INTERRUPTED = 130


class AttnkitError(Exception):
    """A failure with a one-line message: what failed, for which file or argument, got, expected, next step."""

    exit_code = EXIT_FAILED


class UsageError(AttnkitError):
    """The command line or the plan is wrong; nothing has been done."""

    exit_code = EXIT_USAGE


class ItemError(AttnkitError):
    """One item failed; the others may go on."""


class PictureError(ItemError):
    """A picture could not be read or written."""

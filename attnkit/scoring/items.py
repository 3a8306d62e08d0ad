"""One item after another: its rows, or the line that says why there are none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from attnkit.runtime.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    AttnkitError,
    UsageError,
)

if TYPE_CHECKING:
    from attnkit.runtime.items import Item
    from attnkit.runtime.options import BatchOptions
    from attnkit.runtime.progress import Talk

Scored = TypeVar("Scored")


def score_items(
    items: Sequence[Item], score: Callable[[Item], Sequence[Scored]], talk: Talk, *, fail_fast: bool
) -> tuple[list[Scored], list[dict[str, Any]], int]:
    """What `score` gives of all items, {item, error} of those that failed, and the exit code of the run.

    UsageError goes through: it is about the command line, not about an item.
    """
    found: list[Scored] = []
    failed: list[dict[str, Any]] = []
    code = EXIT_DONE
    try:
        for item in items:
            try:
                own = score(item)
            except UsageError:
                raise
            except AttnkitError as error:
                failed.append({"item": item.name, "error": str(error)})
                talk.error(str(error))
                if fail_fast:
                    break
                continue
            found += own
            talk.detail(f"{item.name}: {len(own)} scored")
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    if failed and not code:
        code = EXIT_SOME_FAILED if found else EXIT_FAILED
    return found, failed, code


def show_plan(items: Sequence[Item], methods: Sequence[str] | None, batch: BatchOptions) -> None:
    """What --dry-run says: the items, and the methods to be run on them, or that they are scored as they are."""
    from attnkit.runtime.answers import print_document, print_table

    named = list(methods or ["prediction"])
    if batch.json or batch.jsonl:
        plan = [{"item": item.name, "kind": item.kind, "action": "score", "methods": named} for item in items]
        print_document(plan, {"dry_run": True, "items": len(items)})
    elif not batch.quiet:
        print_table(["item", "kind", "methods"], [[i.name, i.kind or "unknown", ", ".join(named)] for i in items])

"""Sub-commands: parse, build a request, call the task, render."""

"""One short module per architecture: what the registry lists. Nothing heavy is imported when these are."""

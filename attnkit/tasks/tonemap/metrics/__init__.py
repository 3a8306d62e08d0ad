"""Quality measures of a tone-mapped picture."""

"""Questions about images: the models that answer them, and how their answers are scored."""

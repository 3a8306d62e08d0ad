"""Vision-language models in transformers layout: opening, prompts, and the attention that calibrations act in."""

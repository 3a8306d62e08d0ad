"""Small trained additions to the decoder layers of a frozen vision-language model: p-adapter, bottleneck, LoRA."""

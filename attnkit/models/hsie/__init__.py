"""HSIE: low-light hyperspectral enhancement band by band (arXiv 2208.03042), as published and its fast path."""

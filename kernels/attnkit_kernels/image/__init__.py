"""Image operators: Laplacian pyramid, 3-D look-up tables, local Laplacian remapping."""

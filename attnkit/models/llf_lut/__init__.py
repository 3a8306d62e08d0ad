"""LLF-LUT++ as published (TPAMI 2025, arXiv 2510.11613): 3-D tables inside a Laplacian pyramid.

`predictor` looks at the thumbnail, `heads` say how each pixel of a band is remapped, `edges` finds the edges that the
coarsest head sees, `model` puts them together, `convert` reads the authors' checkpoints, `mapper` is what the task
uses.
"""

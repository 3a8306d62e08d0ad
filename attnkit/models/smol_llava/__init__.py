"""`smol-llava`: DINOv2 ViT-S/14, a projector of ours and SmolLM2-135M-Instruct as one folder in LLaVA format.

The towers come from two pinned packages of the extra ``vlm``, whose data files are read and whose code is never run.
"""

"""Training of smol-llava's projector: captioned cut-outs on photographs, easy-VQA, our own scenes."""

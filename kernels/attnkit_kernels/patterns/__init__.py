"""Sparse attentions: settings (or query and key) in, block map out; one short file each."""

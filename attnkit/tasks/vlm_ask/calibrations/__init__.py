"""Calibrations of a model's attention, one file each; `settings` names them without importing torch."""

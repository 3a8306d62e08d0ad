"""Generated scenes of coloured shapes: what is in them, how they look, and questions with exactly known answers."""

"""Pictures with questions whose answers are known: how examples/vlm was made, and any other number of scenes.

python examples/make_scenes.py [FOLDER]
"""

import sys
from pathlib import Path

from attnkit.tasks.vlm_ask.scenes.held_out import write_held_out

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
count = write_held_out(out, scenes=2)
print(f"{count} questions about {len(list(out.glob('*.png')))} pictures: {out / 'tasks.jsonl'}")

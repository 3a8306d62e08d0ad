"""Pictures with questions whose answers are known: how examples/vlm was made.

python examples/make_scenes.py [FOLDER]
"""

import json
import sys
from pathlib import Path

from PIL import Image

from attnkit.tasks.vlm_ask.scenes.held_out import SIDE, held_out_tasks
from attnkit.tasks.vlm_ask.scenes.render import render
from attnkit.tasks.vlm_ask.scenes.scene import make_scene

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out")
out.mkdir(parents=True, exist_ok=True)

with open(out / "tasks.jsonl", "w", encoding="utf-8") as stream:
    # two scenes of each clutter, 0 to 3; no training sees their seeds
    for number, (seed, clutter, tasks) in enumerate(held_out_tasks(scenes=2), 1):
        picture = render(make_scene(seed, clutter), SIDE).pixels
        Image.fromarray(picture).save(out / f"scene{number}.png")
        for task in tasks:
            named = {"question_id": task["question_id"], "image": f"scene{number}.png"}
            stream.write(json.dumps({**task, **named}) + "\n")
        print(out / f"scene{number}.png", f"clutter {clutter}, {len(tasks)} questions")

"""The model that comes with attnkit answers questions about scenes that it never saw."""

from __future__ import annotations

from PIL import Image

from attnkit.models import registry
from attnkit.tasks.vlm_ask.scenes.held_out import SIDE, held_out_tasks, score
from attnkit.tasks.vlm_ask.scenes.render import render
from attnkit.tasks.vlm_ask.scenes.scene import make_scene
from attnkit.tasks.vlm_ask.task import Request, ask

SCENES = 20
# of questions about scenes of clutter 0 and 1; what the card says, less what so few questions may miss by chance
LEAST = {
    "existence": 0.9, "colour": 0.85, "shape": 0.85, "count": 0.8, "position": 0.85, "choice": 0.85, "description": 0.5,
}  # fmt: skip


def test_answers_about_held_out_scenes_are_right_and_end() -> None:
    vlm = registry.open_model("tiny-llava", task="vlm-ask")
    tasks, requests = [], []
    for seed, clutter, asked in held_out_tasks(SCENES, (0, 1), choices=True):
        picture = Image.fromarray(render(make_scene(seed, clutter), SIDE).pixels)
        tasks += asked
        requests += [Request((picture,), task["text"]) for task in asked]
    answers = []
    for start in range(0, len(requests), 32):
        answers += ask(vlm, requests[start : start + 32])
    assert all(answer.finished for answer in answers)
    scores = score(tasks, {task["question_id"]: answer.text for task, answer in zip(tasks, answers, strict=True)})
    shares = {kind: right / count for kind, row in scores.items() for right, count in [row["all"]]}
    assert all(shares[kind] >= least for kind, least in LEAST.items()), shares

"""Answers as rows of a table and as fields of a record."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnkit.models.vlm.prompt import View

    from .jobs import Job
    from .task import Answer, Token

DIGITS = 6


def about_job(job: Job) -> dict[str, Any]:
    """What a row says of its question."""
    return {
        "id": job.id,
        "image": job.images[0] if len(job.images) == 1 else list(job.images),
        "question": job.question,
        **job.carried,
    }


def about_answer(answer: Answer, marker: str, probs: bool) -> dict[str, Any]:
    """What a row says of one answer: how it was asked, what the calibrations did, how sure the model was.

    `mean_probability` is the geometric mean over the answer's tokens.
    """
    tokens = answer.tokens
    mean = None
    if tokens:
        product = 1.0
        for token in tokens:
            product *= token.probability ** (1 / len(tokens))
        mean = round(product, DIGITS)
    found: dict[str, Any] = {
        "calibration": answer.calibration,
        "answer": answer.text,
        "finished": answer.finished,
        "first_token": tokens[0].text if tokens else None,
        "first_probability": round(tokens[0].probability, DIGITS) if tokens else None,
        "mean_probability": mean,
        "prompt_text": short_prompt(answer.prompt, marker),
        "prompt_tokens": answer.prompt_tokens,
        "image_tokens": answer.image_tokens,
        "images": [_about_view(view) for view in answer.views],
        "reports": answer.reports,
    }
    if probs:
        found["tokens"] = [_about_token(token) for token in tokens]
    return found


def short_prompt(text: str, marker: str) -> str:
    """A prompt with each run of image tokens written once: `<image>[576]` stands for 576 of them."""
    runs = re.compile(f"(?:{re.escape(marker)})+")
    return runs.sub(lambda run: f"{marker}[{len(run.group()) // len(marker)}]", text)


def _about_token(token: Token) -> dict[str, Any]:
    return {
        "text": token.text,
        "probability": round(token.probability, DIGITS),
        "alternatives": [[text, round(share, DIGITS)] for text, share in token.alternatives],
    }


def _about_view(view: View) -> dict[str, Any]:
    return {
        "width": view.width,
        "height": view.height,
        "model_width": view.model_width,
        "model_height": view.model_height,
        "scale": [round(view.model_width / view.width, DIGITS), round(view.model_height / view.height, DIGITS)],
        "tokens": view.tokens,
    }


def compared(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as a line of the table of --compare: sums over what its calibrations report."""
    reports: Sequence[Mapping[str, Any]] = list(answer["reports"].values())

    def total(key: str) -> Any:
        told = [report[key] for report in reports if key in report]
        return sum(told) if told else None

    layers = [sinks for report in reports for sinks in report.get("visual_sinks", {}).values()]
    found = any("visual_sinks" in report for report in reports)
    return {
        **answer,
        "answer": " ".join(shown(answer["answer"]).split()),
        "first_token": shown(answer["first_token"] or ""),
        "attention_moved": total("attention_moved"),
        "rows_changed": total("rows_changed"),
        "visual_sinks": len({sink for sinks in layers for sink in sinks}) if found else None,
    }


def shown(text: str) -> str:
    """A text that a terminal can be given: a model may say control characters as well."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def warnings_of(answer: Answer) -> list[str]:
    """What a calibration has to say to people."""
    return [report["warning"] for report in answer.reports.values() if report.get("warning")]

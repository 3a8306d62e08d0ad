"""Laplacian pyramid: the definition of the paper sheet, every small size, both CPU implementations."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from attnkit_kernels.image import laplacian

torch.set_num_threads(1)
CPU = ("reference", "numba")
SIZES = [*itertools.product((1, 2, 3, 4, 5), repeat=2), (17, 9), (8, 33)]


def picture(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).random(shape).astype(dtype)


def by_convolution(image):
    """down and up of one plane, with the 5 x 5 kernel and zeros written out, float64."""
    line = np.array([1, 4, 6, 4, 1]) / 16
    kernel = np.outer(line, line)

    def convolve(plane):
        padded = np.pad(plane, 2, mode="reflect")
        rows, columns = plane.shape
        return sum(kernel[r, c] * padded[r : r + rows, c : c + columns] for r in range(5) for c in range(5))

    stuffed = np.zeros((2 * image.shape[0], 2 * image.shape[1]))
    stuffed[::2, ::2] = image
    return convolve(image)[::2, ::2], 4 * convolve(stuffed)


@pytest.mark.parametrize("impl", CPU)
@pytest.mark.parametrize("size", SIZES)
def test_reconstruction_is_exact_for_every_size(impl, size):
    image = picture(2, 3, *size)
    bands = laplacian.decompose(image, 3, impl=impl)
    assert len(bands) == 4
    assert np.abs(laplacian.reconstruct(bands, impl=impl) - image).max() < 1e-6


@pytest.mark.parametrize("impl", CPU)
@pytest.mark.parametrize("size", SIZES)
def test_down_and_up_are_the_convolutions_of_the_definition(impl, size):
    image = picture(1, 1, *size, dtype=np.float64)
    small, large = by_convolution(image[0, 0])
    assert np.allclose(laplacian.down(image, impl=impl)[0, 0], small, rtol=0, atol=1e-14)
    assert np.allclose(laplacian.up(image, impl=impl)[0, 0], large, rtol=0, atol=1e-14)
    odd = 2 * size[0] - 1, 2 * size[1] - 1
    # nearest resizing by one sample drops the last
    assert np.allclose(laplacian.up(image, odd, impl=impl)[0, 0], large[: odd[0], : odd[1]], rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", SIZES)
def test_opencv_agrees_for_every_size(size):
    image = picture(1, 1, *size)
    small = laplacian.down(image, impl="numba")
    assert np.abs(small[0, 0] - cv2.pyrDown(image[0, 0])).max() < 3e-7
    large = cv2.pyrUp(small[0, 0], dstsize=size[::-1])
    assert np.abs(laplacian.up(small, size, impl="numba")[0, 0] - large).max() < 3e-7


@pytest.mark.parametrize("impl", CPU)
def test_levels_are_the_steps_put_together(impl):
    image = picture(1, 2, 11, 6)
    levels = laplacian.gaussian(image, 2, impl=impl)
    bands = laplacian.decompose(image, 2, impl=impl)
    assert [level.shape for level in levels] == [(1, 2, 11, 6), (1, 2, 6, 3), (1, 2, 3, 2)]
    assert np.array_equal(levels[1], laplacian.down(image, impl=impl))
    assert np.allclose(bands[0], image - laplacian.up(levels[1], (11, 6), impl=impl), atol=1e-7)
    assert np.array_equal(bands[2], levels[2])
    assert np.array_equal(laplacian.decompose(image, 0, impl=impl)[0], image)


@pytest.mark.parametrize("impl", CPU)
def test_constants_stay_and_shifts_of_value_pass_through(impl):
    constant = np.full((1, 1, 7, 5), 0.75, np.float32)
    assert np.array_equal(laplacian.down(constant, impl=impl), np.full((1, 1, 4, 3), 0.75, np.float32))
    assert np.array_equal(laplacian.up(constant, impl=impl), np.full((1, 1, 14, 10), 0.75, np.float32))
    image = picture(1, 1, 9, 8, dtype=np.float64)
    for plain, shifted in zip(
        laplacian.decompose(image, 2, impl=impl)[:-1], laplacian.decompose(image + 3, 2, impl=impl)[:-1], strict=True
    ):
        assert np.abs(plain - shifted).max() < 1e-14


@pytest.mark.parametrize("impl", CPU)
def test_mirroring_an_odd_image_mirrors_its_bands(impl):
    image = picture(1, 1, 9, 17, dtype=np.float64)
    bands = laplacian.decompose(image, 3, impl=impl)
    mirrored = laplacian.decompose(np.ascontiguousarray(image[..., ::-1, ::-1]), 3, impl=impl)
    # an even size is doubled with its zeros on the far side only: there the two borders differ
    assert np.abs(bands[1][..., ::-1, ::-1] - mirrored[1])[..., 2:-2, 2:-2].max() < 1e-14
    assert np.abs(bands[3][..., ::-1, ::-1] - mirrored[3]).max() < 1e-14


@pytest.mark.parametrize("impl", CPU)
def test_a_batch_equals_its_samples_and_strides_do_not_matter(impl):
    image = picture(3, 2, 10, 7)
    whole = laplacian.decompose(image, 2, impl=impl)
    for sample in range(3):
        alone = laplacian.decompose(image[sample : sample + 1], 2, impl=impl)
        assert all(np.array_equal(one[0], many[sample]) for one, many in zip(alone, whole, strict=True))
    transposed = np.ascontiguousarray(image.swapaxes(2, 3)).swapaxes(2, 3)
    assert np.array_equal(laplacian.decompose(transposed, 2, impl=impl)[0], whole[0])
    reversed_rows = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]
    assert np.array_equal(laplacian.decompose(reversed_rows, 2, impl=impl)[0], whole[0])


@pytest.mark.parametrize("impl", CPU)
def test_half_precision_is_computed_in_float32(impl):
    image = picture(1, 3, 13, 10, dtype=np.float16)
    exact = laplacian.decompose(image.astype(np.float32), 2, impl=impl)
    for half, single in zip(laplacian.decompose(image, 2, impl=impl), exact, strict=True):
        assert half.dtype == np.float16
        assert np.array_equal(half, single.astype(np.float16))


def test_bfloat16_runs_in_the_reference():
    image = torch.from_numpy(picture(1, 1, 5, 5)).bfloat16()
    assert laplacian.down(image).dtype == torch.bfloat16
    assert torch.equal(laplacian.down(image), laplacian.down(image.float()).bfloat16())


@pytest.mark.parametrize("impl", CPU)
def test_a_nan_reaches_its_five_by_five_neighbourhood_and_no_further(impl):
    image = picture(1, 1, 21, 21)
    image[0, 0, 10, 10] = np.nan
    hit = np.isnan(laplacian.down(image, impl=impl)[0, 0])
    expected = np.zeros((11, 11), bool)
    expected[4:7, 4:7] = True
    assert np.array_equal(hit, expected)


def test_implementations_agree_in_float64():
    image = picture(2, 2, 19, 22, dtype=np.float64)
    for one, other in zip(*(laplacian.decompose(image, 4, impl=impl) for impl in CPU), strict=True):
        assert one.dtype == np.float64
        assert np.abs(one - other).max() < 1e-15


def test_the_reference_has_the_right_gradient():
    image = torch.rand(1, 1, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: laplacian.decompose(x, 2)[:2], image)
    assert torch.autograd.gradcheck(lambda x: laplacian.reconstruct([x, laplacian.down(x) ** 2]), image)


@pytest.mark.parametrize("impl", CPU)
def test_an_empty_batch_gives_an_empty_pyramid(impl):
    bands = laplacian.decompose(np.zeros((0, 3, 6, 5), np.float32), 1, impl=impl)
    assert [band.shape for band in bands] == [(0, 3, 6, 5), (0, 3, 3, 3)]
    assert laplacian.reconstruct(bands, impl=impl).shape == (0, 3, 6, 5)


def test_read_only_arrays_are_taken():
    image = picture(1, 1, 6, 6)
    expected = laplacian.down(image)
    image.flags.writeable = False
    assert np.array_equal(laplacian.down(image), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: laplacian.down(x[0]), r"image: expected \[batch, channels, rows, columns\], got shape \[1, 4, 6\]"),
        (lambda x: laplacian.down(x[:, :, :0]), r"at least one row and one column, got shape \[1, 1, 0, 6\]"),
        (lambda x: laplacian.decompose(x, -1), "levels: expected 0 or more, got -1"),
        (
            lambda x: laplacian.up(x, (9, 12)),
            r"a 4 x 6 level goes up to 7 or 8 rows and 11 or 12 columns, got \(9, 12\)",
        ),
        (lambda x: laplacian.reconstruct([]), "at least the low-pass"),
        (
            lambda x: laplacian.reconstruct([x, x]),
            r"bands\[1\]: expected shape \[1, 1, 2, 3\] below \[1, 1, 4, 6\], got",
        ),
    ],
)
def test_wrong_arguments_name_the_rule_and_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call(picture(1, 1, 4, 6))


def test_wrong_types_are_type_errors():
    with pytest.raises(TypeError, match=r"levels: expected a whole number, got 1\.5"):
        laplacian.gaussian(picture(1, 1, 4, 4), 1.5)
    with pytest.raises(TypeError, match=r"bands\[1\]: expected dtype float32 as above, got float64"):
        laplacian.reconstruct([picture(1, 1, 4, 4), picture(1, 1, 2, 2, dtype=np.float64)])

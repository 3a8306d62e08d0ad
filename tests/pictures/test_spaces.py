"""Colour matrices against published ones and against the primaries themselves."""

import numpy as np
import pytest

from attnkit.pictures import spaces
from attnkit.runtime.errors import UsageError

# IEC 61966-2-1, as widely printed (4 digits)
REC709_TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
# ITU-R BT.2087-0 equation 2
REC2020_TO_REC709 = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
# SMPTE ST 2065-1 annex: AP0 to XYZ
AP0_TO_XYZ = [[0.9525523959, 0.0, 0.0000936786], [0.3439664498, 0.7281660966, -0.0721325464], [0.0, 0.0, 1.0088251844]]
# AMPAS S-2014-004: AP1 to AP0
AP1_TO_AP0 = [
    [0.6954522414, 0.1406786965, 0.1638690622],
    [0.0447945634, 0.8596711185, 0.0955343182],
    [-0.0055258826, 0.0040252103, 1.0015006723],
]
# ACES to sRGB with Bradford adaptation from D60, as the ACES output transforms have it (aces-dev utilities)
AP1_TO_REC709 = [[1.70505, -0.62179, -0.08326], [-0.13026, 1.14080, -0.01055], [-0.02400, -0.12897, 1.15297]]
# Bradford, D65 to D50 (Lindbloom)
D65_TO_D50 = [
    [1.0478112, 0.0228866, -0.0501270],
    [0.0295424, 0.9904844, -0.0170491],
    [-0.0092345, 0.0150436, 0.7521316],
]


@pytest.mark.parametrize(
    ("source", "target", "published", "tolerance"),
    [
        ("rec709", "xyz", REC709_TO_XYZ, 6e-5),
        ("rec2020", "rec709", REC2020_TO_REC709, 6e-5),
        ("acescg", "aces2065", AP1_TO_AP0, 1e-8),
        ("acescg", "rec709", AP1_TO_REC709, 6e-5),
    ],
)
def test_published_matrices(source: str, target: str, published: list[list[float]], tolerance: float) -> None:
    np.testing.assert_allclose(spaces.matrix(source, target), published, atol=tolerance)


def test_ap0_to_its_own_xyz() -> None:
    np.testing.assert_allclose(spaces.to_xyz("aces2065"), AP0_TO_XYZ, atol=1e-8)


def test_bradford() -> None:
    adapted = spaces.adaptation((0.95047, 1.0, 1.08883), (0.96422, 1.0, 0.82521))
    np.testing.assert_allclose(adapted, D65_TO_D50, atol=2e-6)


@pytest.mark.parametrize("space", [*spaces.PRIMARIES])
def test_white_stays_white_and_the_way_back_is_the_inverse(space: str) -> None:
    np.testing.assert_allclose(spaces.matrix(space, "rec709") @ np.ones(3), 1.0, atol=1e-12)
    np.testing.assert_allclose(spaces.matrix(space, "rec709") @ spaces.matrix("rec709", space), np.eye(3), atol=1e-12)


@pytest.mark.parametrize("space", [*spaces.PRIMARIES])
def test_primaries_have_their_chromaticities(space: str) -> None:
    """By the definition: the columns of the matrix to XYZ have the listed x and y, their sum has the white's."""
    numbers = spaces.PRIMARIES[space]
    matrix = spaces.to_xyz(space)
    for index, vector in enumerate([*matrix.T, matrix.sum(axis=1)]):
        np.testing.assert_allclose(vector[:2] / vector.sum(), numbers[2 * index : 2 * index + 2], atol=1e-12)
    assert matrix.sum(axis=1)[1] == pytest.approx(1)


def test_names_of_chromaticities() -> None:
    assert spaces.name_of(np.float32(spaces.PRIMARIES["acescg"]).tolist()) == "acescg"
    assert spaces.name_of((1, 0, 0, 1, 0, 0, 0.33333, 0.33333)) == "xyz"
    assert spaces.name_of((0.5, 0.3, 0.3, 0.6, 0.15, 0.06, 0.31, 0.33)) == "custom"


def test_srgb_primaries_seen_under_d50_are_rec709_again() -> None:
    """The chromaticities that one of the test light probes carries: sRGB as an ICC profile stores it."""
    adapted = (0.6484474, 0.3308766, 0.3211871, 0.5978943, 0.1559014, 0.0660563, 0.3457084, 0.3585413)
    np.testing.assert_allclose(spaces.matrix(adapted, "rec709"), np.eye(3), atol=5e-4)


def test_unknown_or_impossible_spaces_raise() -> None:
    with pytest.raises(UsageError, match="acescg"):
        spaces.matrix("adobe", "rec709")
    with pytest.raises(ValueError, match="no colour space"):
        spaces.to_xyz((0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3))


def test_convert_is_the_matrix() -> None:
    pixels = np.random.default_rng(0).random((4, 5, 3)).astype(np.float32)
    expected = np.einsum("ij,abj->abi", spaces.matrix("rec2020", "rec709"), pixels)
    np.testing.assert_allclose(spaces.convert(pixels, "rec2020", "rec709"), expected, atol=2e-6)
    assert spaces.convert(pixels, "rec709", "rec709") is pixels


def test_srgb_curve_by_formula_and_both_ways() -> None:
    values = np.concatenate([np.linspace(0, 0.01, 501), np.linspace(0.01, 1, 501), [2.0]]).astype(np.float32)
    exact = values.astype(np.float64)
    expected = np.where(exact <= 0.0031308, 12.92 * exact, 1.055 * exact ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(spaces.srgb_encode(values), expected, atol=5e-7)
    np.testing.assert_allclose(spaces.srgb_decode(spaces.srgb_encode(values)), values, atol=2e-6)
    np.testing.assert_array_equal(spaces.srgb_encode(np.array([[-1.0]], np.float32)), 0)


def test_integer_tables_agree_with_the_formula() -> None:
    """128/255 is 0.21586 in every sRGB table."""
    assert spaces.srgb_decode(np.array([[128]], np.uint8))[0, 0] == pytest.approx(0.2158605, abs=1e-6)
    sixteen = np.arange(65536, dtype=np.uint16)
    eight = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(spaces.srgb_decode(sixteen)[::257], spaces.srgb_decode(eight), atol=1e-7)

"""What holds for every method without weights: settings, regions, limits, and that nothing but the cube matters."""

import numpy as np
import pytest
from low_rank_cubes import low_rank_cube, noisy

from attnkit.models import registry
from attnkit.runtime.errors import UsageError
from attnkit.tasks.hsi_enhance import methods
from attnkit.tasks.hsi_enhance.source import ArraySource, Region

PLENTY = 10**9
CLASSICAL = [name for name in methods.METHODS if not methods.has_model(name)]
DENOISERS = ["mnf", "lowrank"]


def enhanced(name, cube, memory=PLENTY, done=(), model=None, **settings):
    """The result, NaN where no region was handed back, the regions in their order, and the facts."""
    facts, regions = {}, []
    result = np.full(cube.shape, np.nan, np.float32)
    values = {key.replace("_", ".", 1): value for key, value in settings.items()}
    for region, bright in methods.run(
        name, ArraySource(cube), settings=values, memory=memory, done=frozenset(done), model=model, facts=facts
    ):
        assert bright.dtype == np.float32 and bright.shape == region.shape
        assert np.isnan(result[region.slices]).all(), "a sample was handed back twice"
        result[region.slices] = bright
        regions.append(region)
    return result, regions, facts


@pytest.fixture
def small_regions(monkeypatch):
    monkeypatch.setattr("attnkit.tasks.hsi_enhance.methods.regions.ROW_REGION_SAMPLES", 12 * 30 * 7)


def test_the_table():
    assert methods.METHODS == ("hsie", "gain", "mnf", "lowrank", "clahe")
    assert CLASSICAL == ["gain", "mnf", "lowrank", "clahe"]
    with pytest.raises(UsageError, match="--method: got 'bm4d', expected one of hsie, gain, mnf, lowrank, clahe"):
        methods.method_named("bm4d")


def test_defaults_are_taken():
    methods.check_settings(methods.valid_settings())


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("mnf.components", -1, "got -1, expected a whole number from 0 to 100000"),
        ("mnf.components", 2.5, r"got 2\.5, expected a whole number"),
        ("lowrank.wavelet", "bior2.2", r"got 'bior2\.2', expected one of haar, db2"),
        ("lowrank.levels", 13, "got 13, expected a whole number from 0 to 12"),
        ("lowrank.rank", True, "got True, expected a whole number"),
        ("clahe.clip", float("nan"), "got nan, expected a number from 0 to 1000"),
        ("clahe.tiles", 0, "got 0, expected a whole number from 1 to 256"),
        ("gain.amount", 3, r"unknown key, expected one of .*mnf\.components"),
    ],
)
def test_other_values_are_refused(key, value, words):
    with pytest.raises(UsageError, match=f"--set {key}: {words}"):
        methods.check_settings({key: value})


def test_every_wavelet_of_the_settings_is_an_orthogonal_one():
    import pywt

    for name in methods.WAVELETS:
        assert pywt.Wavelet(name).orthogonal


@pytest.mark.parametrize("name", CLASSICAL)
def test_regions_cover_the_cube_once_and_those_done_are_left_out(name, small_regions):
    cube = noisy(low_rank_cube(3, (12, 33, 30)), 0.02)
    # one and a half bands a region for clahe
    memory = 2 * 33 * 30 * 20 if name == "clahe" else PLENTY
    whole, regions, facts = enhanced(name, cube, memory)
    assert len(regions) > 4
    assert np.isfinite(whole).all()
    done = regions[1::2]
    rest, left, facts_again = enhanced(name, cube, memory, [*done, Region(0, 1, 0, 1, 0, 1)])
    assert left == regions[0::2]
    assert facts_again == facts
    for region in regions:
        part = rest[region.slices]
        assert np.isnan(part).all() if region in done else np.array_equal(part, whole[region.slices])


@pytest.mark.parametrize("name", CLASSICAL)
def test_nothing_is_read_when_all_is_done(name):
    class Unread(ArraySource):
        def read(self, *_):
            raise AssertionError("read")

    cube = noisy(low_rank_cube(3, (4, 9, 8)), 0.02)
    _, regions, _ = enhanced(name, cube)
    assert not list(methods.run(name, Unread(cube), settings={}, memory=PLENTY, done=frozenset(regions), facts={}))


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("shape", [(12, 33, 30), (60, 9, 8)])
def test_the_memory_bound_changes_nothing(name, shape):
    cube = noisy(low_rank_cube(3, shape), 0.02)
    whole = enhanced(name, cube)[0]
    for memory in (1000, 50_000):
        np.testing.assert_allclose(enhanced(name, cube, memory)[0], whole, atol=1e-5)


def test_the_memory_bound_changes_nothing_of_a_learned_method(tmp_path):
    path = tmp_path / "tiny.safetensors"
    registry.save(registry.build("hsie", tiny=True), "hsie", path)
    cube = noisy(low_rank_cube(4, (12, 150, 30)), 0.02)
    cube[:, :40, :10] *= 3
    whole, regions, facts = enhanced("hsie", cube, model=str(path))
    # strips of the network and eigen-images in a file
    small, again, same = enhanced("hsie", cube, 100_000, model=str(path))
    assert regions == again and facts == same and facts["rank"] > 1
    np.testing.assert_allclose(small, whole, atol=1e-5)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 1), (4, 1, 7), (4, 7, 1), (1, 9, 9), (40, 3, 2), (2, 17, 5)])
def test_constant_and_tiny_cubes(name, shape):
    constant = np.full(shape, 0.25, np.float32)
    np.testing.assert_allclose(enhanced(name, constant)[0], constant, rtol=1e-6)
    zero = np.zeros(shape, np.float32)
    np.testing.assert_array_equal(enhanced(name, zero)[0], zero)
    busy = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
    assert np.isfinite(enhanced(name, busy)[0]).all()


def test_gain_is_the_source():
    cube = noisy(low_rank_cube(3, (12, 33, 30)), 0.02)
    np.testing.assert_array_equal(enhanced("gain", cube)[0], cube)


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.parametrize("shape", [(31, 40, 36), (80, 9, 8), (200, 21, 13)])
def test_a_cube_without_noise_comes_back(name, shape):
    cube = low_rank_cube(3, shape)
    result, _, facts = enhanced(name, cube)
    np.testing.assert_allclose(result, cube, atol=5e-6)
    assert facts["components" if name == "mnf" else "rank"] == 3


@pytest.mark.parametrize("name", DENOISERS)
def test_bands_in_other_units_are_enhanced_alike(name):
    cube = noisy(low_rank_cube(3, (16, 30, 27)), 0.05)
    factors = np.geomspace(0.01, 100, 16)[:, None, None].astype(np.float32)
    np.testing.assert_allclose(enhanced(name, cube * factors)[0] / factors, enhanced(name, cube)[0], atol=2e-5)


@pytest.mark.parametrize("name", DENOISERS)
def test_an_offset_is_carried(name):
    cube = noisy(low_rank_cube(3, (16, 30, 27)), 0.05)
    offset = np.linspace(-1, 1, 16)[:, None, None].astype(np.float32)
    np.testing.assert_allclose(enhanced(name, cube + offset)[0] - offset, enhanced(name, cube)[0], atol=2e-5)


@pytest.mark.parametrize("axis", [1, 2])
def test_mnf_does_not_see_direction(axis):
    cube = noisy(low_rank_cube(3, (16, 31, 26)), 0.05)
    np.testing.assert_allclose(
        np.flip(enhanced("mnf", np.flip(cube, axis))[0], axis), enhanced("mnf", cube)[0], atol=1e-5
    )


@pytest.mark.parametrize("name", DENOISERS)
def test_constant_bands_among_others_come_back(name):
    cube = noisy(low_rank_cube(3, (16, 30, 27)), 0.05)
    cube[[0, 7]] = 0.0
    cube[15] = 0.6
    result = enhanced(name, cube)[0]
    np.testing.assert_allclose(result[[0, 7, 15]], cube[[0, 7, 15]], atol=1e-6)
    alone = enhanced(name, np.delete(cube, [0, 7, 15], axis=0))[0]
    np.testing.assert_allclose(np.delete(result, [0, 7, 15], axis=0), alone, atol=0.01)

"""What holds for every kind of cube file."""

import dataclasses
import os
import resource
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.io
import spectral
import tifffile

from attnkit.cubes import SIDE_SUFFIXES, SUFFIXES, CubeError, create_cube, open_cube, read_settings, resumable, tiles

# kind of file, its suffix, and whether MATLAB's newer version is meant
KINDS = {
    "envi": (".hdr", None),
    "npy": (".npy", None),
    "npz": (".npz", None),
    "tiff": (".tif", None),
    "hdf5": (".h5", None),
    "mat": (".mat", None),
    "mat73": (".mat", "7.3"),
}
TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
MISSING = {("envi", "i1"), ("envi", "f2"), ("mat", "f2"), ("mat73", "f2")}
SETTINGS = {"command": "hsi-enhance", "method": "gain", "set": {"mnf.components": 8}}


def begin(folder, kind, facts, dtype, *, name="cube", **more):
    """A writer and the path of its file; MATLAB 7.3 is asked for as an input of that version asks for it."""
    suffix, version = KINDS[kind]
    if version:
        facts = dataclasses.replace(facts, kind="mat", version=version)
    path = folder / (name + suffix)
    format = kind.removesuffix("73")
    return path, create_cube(
        path, facts, format=format, dtype=np.dtype(dtype), settings=SETTINGS, history="gain 4", **more
    )


def independent(path, kind):
    """[bands, rows, columns] as another library reads the file."""
    if kind == "envi":
        return spectral.open_image(str(path)).open_memmap(interleave="bsq")
    if kind == "npy":
        return np.load(path).transpose(2, 0, 1)
    if kind == "npz":
        return np.load(path)["cube"].transpose(2, 0, 1)
    if kind == "tiff":
        return tifffile.imread(path)
    if kind == "mat":
        return scipy.io.loadmat(path)["cube"].transpose(2, 0, 1)
    with h5py.File(path) as file:
        stored = file["cube"][()]
        if kind == "hdf5":
            return stored.transpose(2, 0, 1)
        assert path.read_bytes()[:10] == b"MATLAB 7.3"
        assert path.read_bytes()[124:128] == b"\x00\x02IM"
        names = {"float64": "double", "float32": "single"}
        assert file["cube"].attrs["MATLAB_class"].decode() == names.get(stored.dtype.name, stored.dtype.name)
        # MATLAB's first axis is HDF5's last
        return stored.transpose(0, 2, 1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_in_any_order_make_the_file_that_others_read(tmp_path, cube, info, kind, dtype) -> None:
    values = cube(dtype)
    facts = info(values)
    if (kind, dtype) in MISSING:
        with pytest.raises(CubeError, match=f"no type for {values.dtype}; give --dtype float32 or uint16"):
            begin(tmp_path, kind, facts, dtype)
        return
    path, writer = begin(tmp_path, kind, facts, dtype)
    places = [(slice(a, b), slice(c, d), slice(e, f)) for a, b in ((0, 2), (2, 5)) for c, d in ((0, 4), (4, 7))
              for e, f in ((0, 1), (1, 6))]  # fmt: skip
    for place in places[::-1]:
        writer.write(values[place], *place)
    np.testing.assert_array_equal(writer.read(*places[3]), values[places[3]])
    writer.close()
    other = independent(path, kind)
    assert other.dtype.newbyteorder("=") == values.dtype
    np.testing.assert_array_equal(other, values)
    with open_cube(path) as reader:
        found = reader.info
        assert (found.bands, found.rows, found.columns, found.dtype) == (*values.shape, values.dtype)
        np.testing.assert_array_equal(reader.read(), values)
        for bands in (slice(1, 4), [0, 3, 4], [2, 3], slice(None)):
            window = reader.read(bands, slice(2, 6), slice(1, 3))
            np.testing.assert_array_equal(window, values[bands, 2:6, 1:3])
            assert window.dtype == values.dtype
        assert reader.read(slice(0, 5), slice(3, 3), slice(0, 2)).shape == (5, 0, 2)
        assert found.wavelengths_nm == facts.wavelengths
        assert (found.bad_bands, found.ignore_value) == (facts.bad_bands, -9999.0)
        assert dict(found.extra) == facts.extra
        assert found.description == "taken at noon\nby a balloon\ngain 4"
    assert read_settings(path) == SETTINGS


@pytest.mark.parametrize("kind", KINDS)
def test_an_aborted_file_is_gone_on_with(tmp_path, cube, info, kind) -> None:
    values = cube("u2")
    facts = info(values)
    whole = slice(0, 5), slice(0, 7), slice(0, 6)
    assert resumable(kind.removesuffix("73"))
    path, writer = begin(tmp_path, kind, facts, "u2")
    writer.write(values[:, :3], whole[0], slice(0, 3), whole[2])
    writer.abort()
    path, writer = begin(tmp_path, kind, facts, "u2", resume=True)
    writer.write(values[:, 3:], whole[0], slice(3, 7), whole[2])
    writer.close()
    once, writer = begin(tmp_path, kind, facts, "u2", name="once")
    writer.write(values, *whole)
    writer.close()
    # the same bytes whichever way and whenever they were written
    for suffix in {path.suffix, ".img", SIDE_SUFFIXES.get(kind, ".img")}:
        if path.with_suffix(suffix).exists():
            assert path.with_suffix(suffix).read_bytes() == once.with_suffix(suffix).read_bytes()
    with pytest.raises(CubeError, match="remove it and start again"):
        begin(tmp_path, kind, info(cube("u2", (5, 8, 6))), "u2", resume=True)


@pytest.mark.parametrize("kind", KINDS)
def test_large_files_are_read_and_written_in_steps(tmp_path, cube, info, kind, monkeypatch) -> None:
    values = cube("f4")
    monkeypatch.setattr(tiles, "STEP_BYTES", 40)
    monkeypatch.setattr("attnkit.cubes.tiff.STRIP_BYTES", 50)
    path, writer = begin(tmp_path, kind, info(values), "f4")
    writer.write(values, slice(0, 5), slice(0, 7), slice(0, 6))
    writer.close()
    np.testing.assert_array_equal(independent(path, kind), values)
    with open_cube(path) as reader:
        np.testing.assert_array_equal(reader.read([0, 2, 4], slice(1, 7), slice(2, 5)), values[[0, 2, 4], 1:7, 2:5])


def test_no_step_touches_more_of_the_file_than_it_may() -> None:
    shape = (2000, 3000, 200)
    chosen = [range(200), range(2000), range(3000)]
    for axes in (("rows", "columns", "bands"), ("bands", "rows", "columns"), ("rows", "bands", "columns"),
                 ("bands", "columns", "rows")):  # fmt: skip
        sizes = {"bands": 200, "rows": 2000, "columns": 3000}
        stored = tuple(sizes[name] for name in axes)
        seen = 0
        for piece, place in tiles.pieces(chosen, axes, stored, 4):
            count = np.prod([part.stop - part.start for part in piece])
            assert count * 4 <= tiles.STEP_BYTES
            assert [part.stop - part.start for part in place] == [part.stop - part.start for part in piece]
            seen += int(count)
        assert seen == np.prod(shape)
    # a short run in each band brings its neighbourhood with it
    narrow = [range(200), range(10), range(10, 11)]
    steps = list(tiles.pieces(narrow, ("bands", "rows", "columns"), (200, 2000, 3000), 4))
    assert len(steps) >= 200 * tiles.AROUND_BYTES / tiles.STEP_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_one_band_of_one_pixel_wide_survives(tmp_path, cube, info, kind) -> None:
    for shape in ((1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (2, 1, 1)):
        values = cube("f4", shape)
        path, writer = begin(tmp_path, kind, info(values), "f4")
        writer.write(values, *(slice(0, size) for size in shape))
        writer.close()
        with open_cube(path) as reader:
            np.testing.assert_array_equal(reader.read(), values)


@pytest.mark.parametrize("kind", KINDS)
def test_no_room_is_an_error_at_the_start_and_leaves_nothing(tmp_path, cube, info, kind) -> None:
    values = cube("f8", (20, 100, 100))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(OSError):
            begin(tmp_path, kind, info(values), "f8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_blocks_of_a_new_file_are_there_before_the_first_tile(tmp_path, cube, info, kind) -> None:
    values = cube("f8", (20, 100, 100))
    path, writer = begin(tmp_path, kind, info(values), "f8")
    data = path.with_suffix(".img") if kind == "envi" else path
    assert os.stat(data).st_blocks * 512 >= values.nbytes
    writer.abort()


def test_a_tile_of_the_wrong_shape_is_refused(tmp_path, cube, info) -> None:
    values = cube("f4")
    _, writer = begin(tmp_path, "npy", info(values), "f4")
    with pytest.raises(ValueError, match="a tile of shape"):
        writer.write(values[:1], slice(0, 2), slice(0, 7), slice(0, 6))


def test_a_matlab_file_that_is_too_large_takes_the_newer_version(tmp_path, cube, info, monkeypatch) -> None:
    monkeypatch.setattr("attnkit.cubes.mat.MOST_BYTES", 100)
    values = cube("u2")
    path, writer = begin(tmp_path, "mat", info(values), "u2")
    writer.close()
    assert path.read_bytes()[:10] == b"MATLAB 7.3"


def test_every_suffix_has_a_kind_that_can_be_gone_on_with() -> None:
    assert set(SUFFIXES.values()) == {"envi", "mat", "hdf5", "npy", "npz", "tiff"}
    assert all(map(resumable, SUFFIXES.values()))
    assert not resumable("jpeg")


MEMORY_SCRIPT = """
import sys
from pathlib import Path
from attnkit.cubes import open_cube
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
with open_cube(Path(sys.argv[1])) as reader:
    reader.read(slice(0, 1), slice(0, 1))
    before = peak()
    for band in range(0, 200, 10):
        assert not reader.read(slice(band, band + 10)).any()
    for row in range(0, 2000, 500):
        assert not reader.read(slice(None), slice(row, row + 4)).any()
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc to read the memory from")
def test_a_mapped_file_does_not_fill_the_memory(tmp_path) -> None:
    (tmp_path / "a.hdr").write_text("ENVI\nsamples = 1000\nlines = 2000\nbands = 200\ndata type = 1\n")
    with (tmp_path / "a.img").open("wb") as stream:
        stream.truncate(400_000_000)
    command = [sys.executable, "-c", MEMORY_SCRIPT, str(tmp_path / "a.hdr")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # two tiles of 20 MB, and what one step maps
    assert int(done.stdout) < 160

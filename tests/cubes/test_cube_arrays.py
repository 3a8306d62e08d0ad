"""Arrays of other programs: NumPy, MATLAB and HDF5 files, their axes, keys and wavelengths."""

import json
import re
import struct

import h5py
import numpy as np
import pytest
import scipy.io

from attnkit.cubes import CubeError, create_cube, identify, mat, npz, open_cube
from attnkit.runtime.errors import UsageError

ORDERS = ("rows,columns,bands", "bands,rows,columns", "columns, bands, rows", "rows,bands,columns")


def ordered(values, order):
    """[bands, rows, columns] as an array of this order."""
    axes = [part.strip() for part in order.split(",")]
    return values.transpose([("bands", "rows", "columns").index(name) for name in axes])


def save(path, array):
    """A file of another program that holds `array` under the name x, or alone."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, x=array) if "packed" in path.stem else np.savez(path, x=array)
    elif path.name == "new.mat":
        with h5py.File(path, "w", userblock_size=512) as file:
            # MATLAB writes its arrays column by column: HDF5 sees the axes reversed
            file.create_dataset("x", data=array.T, chunks=True, compression="gzip").attrs["MATLAB_class"] = np.bytes_(
                {"float64": "double", "float32": "single"}.get(array.dtype.name, array.dtype.name)
            )
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"x": array}, do_compression="packed" in path.stem)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("group/x", data=array, chunks=True, compression="gzip")
    return path


FILES = ("a.npy", "a.npz", "packed.npz", "a.mat", "packed.mat", "new.mat", "a.h5")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FILES)
def test_any_axis_order_is_read_and_written_back(tmp_path, cube, name, order) -> None:
    values = cube("i2")
    path = save(tmp_path / name, ordered(values, order))
    with open_cube(path, axis_order=order) as reader:
        np.testing.assert_array_equal(reader.read(), values)
        np.testing.assert_array_equal(reader.read([0, 3], slice(1, 4), slice(2, 6)), values[[0, 3], 1:4, 2:6])
        info = reader.info
        format = identify(path, path.read_bytes()[:512]).kind
    back = tmp_path / ("back" + path.suffix)
    writer = create_cube(back, info, format=format, dtype=values.dtype, settings={}, history="h")
    writer.write(values, slice(0, 5), slice(0, 7), slice(0, 6))
    writer.close()
    if format in ("npy", "npz"):
        stored = np.load(back) if format == "npy" else np.load(back)["x"]
        np.testing.assert_array_equal(stored, ordered(values, order))
    if format == "mat":
        assert (back.read_bytes()[:10] == b"MATLAB 7.3") == (name == "new.mat")
    # our own file says how its axes lie
    with open_cube(back) as reader:
        np.testing.assert_array_equal(reader.read(), values)


@pytest.mark.parametrize("name", FILES)
def test_big_end_first_and_column_major_arrays(tmp_path, cube, name) -> None:
    values = cube("f8")
    path = save(tmp_path / name, np.asfortranarray(values.transpose(1, 2, 0).astype(">f8")))
    with open_cube(path) as reader:
        assert reader.info.dtype == np.dtype("f8")
        np.testing.assert_array_equal(reader.read(), values)


@pytest.mark.parametrize("name", FILES)
def test_two_axes_are_one_band_and_flags_are_bytes(tmp_path, name) -> None:
    flags = np.arange(12).reshape(3, 4) % 3 == 0
    path = save(tmp_path / name, flags if "mat" not in name else flags.astype(np.uint8))
    with open_cube(path) as reader:
        assert (reader.info.bands, reader.info.rows, reader.info.columns) == (1, 3, 4)
        assert reader.info.dtype == np.uint8
        np.testing.assert_array_equal(reader.read(), flags[None])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 3, 4), "c8", "complex values"),
        ((2, 3, 4, 5), "f4", r"has shape \(2, 3, 4, 5\), expected two axes \(one band\) or three"),
        ((7,), "f4", r"has shape \(7,\), expected two axes"),
        ((2, 0, 4), "f4", r"has shape \(2, 0, 4\), which holds nothing"),
    ],
)
def test_what_is_no_cube_is_told(tmp_path, name, shape, dtype, message) -> None:
    if "mat" in name and len(shape) == 1:
        pytest.skip("MATLAB has no arrays of one axis")
    if name == "new.mat" and dtype == "c8":
        with h5py.File(tmp_path / name, "w") as file:
            parts = np.zeros(shape, [("real", "f4"), ("imag", "f4")])
            file.create_dataset("x", data=parts).attrs["MATLAB_class"] = np.bytes_("single")
        path = tmp_path / name
    elif 0 in shape and name in ("a.h5", "new.mat"):
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            file.create_dataset("x", data=np.zeros(shape))
    else:
        path = save(tmp_path / name, np.zeros(shape, dtype))
    with pytest.raises(CubeError, match=message) as caught, open_cube(path) as reader:
        # the older MATLAB files tell nothing of complex values before they are read
        assert (name, dtype) in (("a.mat", "c8"), ("packed.mat", "c8"))
        reader.read()
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_text_and_objects_are_told(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.array([["a", "b"], ["c", "d"]]))
    np.save(tmp_path / "b.npy", np.array([[{}, 1], [2, 3]], object), allow_pickle=True)
    np.save(tmp_path / "c.npy", np.zeros((2, 2), [("a", "f4"), ("b", "i2")]))
    np.savez(tmp_path / "d.npz", x=np.array([["a", "b"], ["c", "d"]]))
    scipy.io.savemat(tmp_path / "e.mat", {"x": np.array([["a", "b"]], object)})
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = ["a", "b"]
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(CubeError, match=rf"{path.name}.*expected (whole )?numbers"):
            open_cube(path)


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "a.h5"])
def test_the_only_cube_is_taken_and_keys_are_listed(tmp_path, name) -> None:
    path = tmp_path / name
    one, two, labels = np.ones((4, 5, 3), np.uint16), np.full((4, 5, 2), 2.0), np.zeros((4, 5), np.uint8)

    def write(**arrays):
        if name == "a.npz":
            np.savez(path, **arrays)
        elif name == "a.mat":
            scipy.io.savemat(path, arrays)
        else:
            with h5py.File(path, "w") as file:
                for key, array in arrays.items():
                    file[key] = array

    write(cube=one, labels=labels, note="text")
    with open_cube(path) as reader:
        assert (reader.info.key, reader.info.bands) == ("cube", 3)
    with open_cube(path, key="labels") as reader:
        assert (reader.info.key, reader.info.bands) == ("labels", 1)
    with pytest.raises(CubeError, match=r"--key cub: no such array; it holds .*cube \(4x5x3 uint16\)") as caught:
        open_cube(path, key="cub")
    assert "labels (4x5 uint8)" in str(caught.value)
    with pytest.raises(CubeError, match=r"expected (whole )?numbers"):
        open_cube(path, key="note")
    write(one=one, two=two)
    with pytest.raises(CubeError, match=r"several arrays could be the cube.*one \(4x5x3 .*two \(4x5x2 .*--key"):
        open_cube(path)
    with open_cube(path, key="two") as reader:
        assert reader.read().shape == (2, 4, 5)


def test_a_matlab_class_is_wider_than_what_is_stored(tmp_path) -> None:
    # as MATLAB saves doubles that are all small whole numbers; SciPy does not
    values = np.random.default_rng(1).integers(0, 200, (4, 5, 6)).astype("u1")
    element = struct.Struct("<II")
    inner = element.pack(6, 8) + struct.pack("<II", 6, 0) + element.pack(5, 12) + struct.pack("<iii", *values.shape)
    inner += bytes(4) + element.pack(1, 4) + b"cube" + bytes(4) + element.pack(2, values.size) + values.tobytes("F")
    start = b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8) + b"\x00\x01IM"
    (tmp_path / "a.mat").write_bytes(start + element.pack(14, len(inner)) + inner)
    with open_cube(tmp_path / "a.mat") as reader:
        assert reader.info.dtype == np.float64 and reader.read().dtype == np.float64
        np.testing.assert_array_equal(reader.read(), values.transpose(2, 0, 1))


def test_an_hdf5_key_is_a_path(tmp_path, cube) -> None:
    path = save(tmp_path / "a.h5", cube("f4").transpose(1, 2, 0))
    for key in ("group/x", "/group/x", None):
        with open_cube(path, key=key) as reader:
            assert reader.info.key == "group/x"
    with pytest.raises(CubeError, match=r"--key group: no such array; it holds group/x \(7x6x5 float32\)"):
        open_cube(path, key="group")
    with open_cube(path) as reader:
        for format, expected in (("hdf5", "group/x"), ("mat", "x")):
            written = tmp_path / f"b{format}"
            info = reader.info
            if format == "mat":
                info = type(info)(**{**vars(info), "kind": "mat"})
            create_cube(written, info, format=format, dtype=np.dtype("f4"), settings={}, history="").close()
            with open_cube(written, input_format=format) as again:
                assert again.info.key == expected


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "new.mat", "a.h5"])
def test_wavelengths_beside_the_cube_also_tell_the_axis_of_the_bands(tmp_path, cube, name) -> None:
    values, nm = cube("f4"), np.linspace(400, 800, 5)
    path = tmp_path / name
    if name == "a.npz":
        np.savez(path, x=values, wavelengths=nm)
    elif name == "a.mat":
        scipy.io.savemat(path, {"x": values, "wavelength": nm[:, None]})
    else:
        matlab = name == "new.mat"
        with h5py.File(path, "w") as file:
            file["x"] = values.T if matlab else values
            file["sensor/Wavelengths"] = nm[:, None] if matlab else nm / 1000
            file["sensor/Wavelengths"].attrs["units"] = "nm" if matlab else "um"
            if matlab:
                for node in (file["x"], file["sensor/Wavelengths"]):
                    node.attrs["MATLAB_class"] = np.bytes_("single" if node.ndim == 3 else "double")
    with open_cube(path) as reader:
        assert reader.info.axis_order == "bands,rows,columns"
        assert reader.info.wavelengths_nm == tuple(nm)
        np.testing.assert_array_equal(reader.read(), values)
    with open_cube(path, axis_order="rows,columns,bands") as reader:
        assert reader.info.wavelengths is None
        assert reader.info.bands == 6


def test_wavelengths_as_an_attribute(tmp_path, cube) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = cube("f4").transpose(1, 2, 0)
        file["x"].attrs["wavelength"] = "{1.0, 1.1, 1.2, 1.3, 1.4}"
        file["x"].attrs["_FillValue"] = -1.0
    with open_cube(tmp_path / "a.h5") as reader:
        assert reader.info.wavelengths_nm == (1000.0, 1100.0, 1200.0, 1300.0, 1400.0)
        assert reader.info.ignore_value == -1


def test_a_plain_npz_is_mapped_and_a_packed_one_is_not(tmp_path, cube) -> None:
    for name, held in (("a.npz", False), ("packed.npz", True), ("a.npy", False), ("a.mat", True)):
        with open_cube(save(tmp_path / name, cube("f4"))) as reader:
            assert reader.in_memory is held


@pytest.mark.parametrize("name", ["packed.npz", "packed.mat"])
def test_a_packed_array_is_unpacked_once_and_not_before_it_is_asked_for(tmp_path, cube, name, monkeypatch) -> None:
    unpacked = []
    for module in (npz, mat):
        load = module._load
        monkeypatch.setattr(module, "_load", lambda *named, load=load: unpacked.append(named[-1]) or load(*named))
    with open_cube(save(tmp_path / name, cube("f4"))) as reader:
        assert not [names for names in unpacked if "x" in names]
        reader.read(rows=slice(0, 1))
        reader.read(rows=slice(1, 2))
    assert len([names for names in unpacked if "x" in names]) == 1


def test_facts_lie_beside_an_npy_and_belong_to_its_item(tmp_path, cube, info) -> None:
    path = tmp_path / "a.npy"
    values = cube("f4")
    create_cube(path, info(values), format="npy", dtype=values.dtype, settings={"a": 1}, history="h").close()
    side = tmp_path / "a.npy.json"
    assert identify(path, path.read_bytes()[:512]).companions == (side,)
    stored = json.loads(side.read_text())
    assert stored["attnkit"] == {"a": 1}
    assert stored["wavelengths"] == list(info(values).wavelengths)
    # another's file, or one that someone has changed, says nothing
    for text in ("{}", "[1]", "not json", '{"attnkit": {}, "wavelengths": ["a"]}', '{"attnkit": {}, "bad_bands": [1]}'):
        side.write_text(text)
        with open_cube(path) as reader:
            assert reader.info.wavelengths is None and reader.info.bad_bands is None


def test_an_axis_order_that_names_no_axes_is_a_usage_error(tmp_path, cube) -> None:
    path = save(tmp_path / "a.npy", cube("f4"))
    for order in ("bands,rows", "rows,rows,bands", "x,y,z", ""):
        with pytest.raises(UsageError, match=r"--axis-order: got .* expected rows, columns and bands"):
            open_cube(path, axis_order=order)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_told_in_one_line(tmp_path, cube, name) -> None:
    values = np.random.default_rng(3).integers(0, 2**15, (40, 30, 20)).astype("i2")
    path = save(tmp_path / name, values)
    whole = path.read_bytes()
    for part in (0.3, 0.6, 0.95):
        path.write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(CubeError, match=r"copy the file again") as caught, open_cube(path) as reader:
            reader.read()
        assert "\n" not in str(caught.value) and name in str(caught.value)
        if name == "a.npy":
            assert f"holds {int(len(whole) * part)} bytes, expected {len(whole)}" in str(caught.value)


@pytest.mark.parametrize("name", ["packed.npz", "packed.mat", "new.mat", "a.h5"])
def test_damaged_bytes_are_told_in_one_line(tmp_path, name) -> None:
    values = np.random.default_rng(3).integers(0, 2**15, (40, 30, 20)).astype("i2")
    path = save(tmp_path / name, values)
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 2000] = bytes(2000)
    path.write_bytes(whole)
    with pytest.raises(CubeError, match=re.escape(name)), open_cube(path) as reader:
        reader.read()


@pytest.mark.parametrize("format", ["npy", "npz", "mat", "hdf5", "tiff", "envi"])
def test_a_file_of_another_kind_is_told(tmp_path, format) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("taken at noon, " * 100)
    with pytest.raises(CubeError, match=r"notes\.txt"):
        open_cube(path, input_format=format)
    with pytest.raises(CubeError, match=r"cannot read .*absent\.npy: No such file"):
        open_cube(tmp_path / "absent.npy", input_format=format)

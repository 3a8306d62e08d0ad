"""`attnkit hsi-enhance`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attnkit.runtime.options import BatchOptions, Inputs, batch_command
from attnkit.runtime.values import parse_bytes

Method = Literal["hsie", "gain", "mnf", "lowrank", "clahe"]
Format = Literal["envi", "mat", "hdf5", "npy", "npz", "tiff"]
CUBE, LIGHT, FILES, SHOWN = "The method", "Light", "Its files", "To look at"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


@batch_command
def hsi_enhance(
    batch: BatchOptions,
    inputs: Inputs,
    method: Annotated[Method, _option(CUBE, "How noise is taken out of the brightened cube")] = "hsie",
    model: Annotated[str | None, _option(CUBE, "Name, file or hub id of a model for hsie", "--model", "-m")] = None,
    setting: Annotated[
        list[str] | None, _option(CUBE, "A method's own setting; repeatable", "--set", metavar="METHOD.KEY=VALUE")
    ] = None,
    memory: Annotated[
        int,
        _option(
            CUBE, "Memory of the whole run; jobs share it", metavar="SIZE", parser=parse_bytes, show_default="1.5GB"
        ),
    ] = 1_500_000_000,
    scale: Annotated[
        str, _option(LIGHT, "Stored value of full exposure; auto: from type and largest value", metavar="auto|VALUE")
    ] = "auto",
    gain: Annotated[
        str, _option(LIGHT, "How much brighter; auto: white at 0.9 of full exposure", metavar="auto|VALUE")
    ] = "auto",
    dark: Annotated[
        Path | None, _option(LIGHT, "Cube taken with the shutter closed, subtracted", metavar="FILE")
    ] = None,
    white: Annotated[
        Path | None, _option(LIGHT, "Cube of a white panel: values become reflectance", metavar="FILE")
    ] = None,
    bad: Annotated[
        Literal["keep", "interpolate"], _option(LIGHT, "What is written in dead bands, missing and masked pixels")
    ] = "keep",
    format: Annotated[Format | None, _option(FILES, "Kind of file; else by --out's suffix, or the input's")] = None,
    dtype: Annotated[
        Literal["same", "float32", "uint16"], _option(FILES, "Type of the values written; clipped ones are counted")
    ] = "same",
    key: Annotated[str | None, _option(FILES, "Variable of a .mat, dataset of an HDF5, array of an .npz")] = None,
    axis_order: Annotated[
        str | None, _option(FILES, "Axes of .mat, HDF5 and .npy arrays, such as bands,rows,columns", metavar="A,B,C")
    ] = None,
    wavelengths: Annotated[
        Path | None,
        _option(FILES, "Wavelengths, one a line or a column of a table, in place of the cube's", metavar="FILE"),
    ] = None,
    rows: Annotated[str | None, _option(FILES, "Only these rows; B is left out", metavar="A:B")] = None,
    cols: Annotated[str | None, _option(FILES, "Only these columns", "--cols", metavar="A:B")] = None,
    bands: Annotated[str | None, _option(FILES, "Only these bands", metavar="A:B")] = None,
    preview: Annotated[
        str | None, _option(SHOWN, "Also write an RGB picture of the result", metavar="FILE.png|DIR/")
    ] = None,
    preview_bands: Annotated[
        str | None, _option(SHOWN, "Numbers of its red, green and blue band; else by wavelength", metavar="R,G,B")
    ] = None,
    plot: Annotated[
        str | None, _option(SHOWN, "Also draw one pixel's spectrum before and after", metavar="FILE.png|DIR/")
    ] = None,
    plot_spectra: Annotated[
        str | None,
        _option(SHOWN, "Pixel of --plot, else the middle one; alone: STEM_spectra.png beside it", metavar="ROW,COL"),
    ] = None,
) -> int:
    """Brighten dark hyperspectral cubes and take out their noise.

    Examples:
      # one ENVI pair: outcrop_hsi-enhance.hdr and its data beside it
      attnkit hsi-enhance outcrop.hdr
      # a folder of cubes every night, only what is new
      attnkit hsi-enhance cubes/ --out bright/ --update --quiet
      # exposure known: the sensor's full scale and how much longer the exposure should have been
      attnkit hsi-enhance scan.mat --key cube --scale 4095 --gain 15
      # reflectance from references, with a picture of the result
      attnkit hsi-enhance scan.hdr --dark dark.hdr --white white.hdr --preview scan.png
      # a classical method, one part of the cube
      attnkit hsi-enhance scan.h5 --method mnf --rows 0:200 --bands 10:150 --out part.npy

    Reads and writes ENVI (all types, interleaves and byte orders), MATLAB, HDF5, NumPy and multi-band TIFF, in the
    input's kind unless told otherwise; wavelengths, map and other header fields are carried. Cubes larger than memory
    are worked on in tiles; one that was stopped leaves a hidden file beside its place, for --resume to go on with. The
    record tells scale and gain, broken bands and pixels, and how much spectra changed.
    """
    from attnkit.runtime.batch import run_files
    from attnkit.runtime.values import parse_settings
    from attnkit.tasks.hsi_enhance.files import HsiEnhanceFiles
    from attnkit.tasks.hsi_enhance.methods import valid_settings

    command = HsiEnhanceFiles(
        method=method, model=model, own_settings=parse_settings(setting or (), valid_settings()),
        memory=memory // batch.jobs, scale=scale, gain=gain, dark=dark, white=white, bad=bad, format=format,
        dtype=dtype, key=key, axis_order=axis_order, wavelengths=wavelengths, rows=rows, cols=cols, bands=bands,
        preview=preview, preview_bands=preview_bands, plot=plot, plot_spectra=plot_spectra,
        input_format=batch.input_format, offline=batch.offline, resume=batch.resume,
        to_standard_output=batch.out == "-",
    )  # fmt: skip
    return run_files(command, inputs, batch)

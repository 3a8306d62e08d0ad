"""`attnkit tonemap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from attnkit.runtime.options import BatchOptions, Inputs, batch_command

Method = Literal["llf-lut", "llf", "drago", "reinhard", "mantiuk", "linear"]
Format = Literal["png", "jpeg", "tiff", "exr"]
Depth = Literal[8, 16, 32]
InputSpace = Literal["auto", "rec709", "acescg", "aces2065", "rec2020", "xyz"]
LOOK, FILES, CHECKS = "The picture", "Its file", "Comparing"


def _option(panel: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


@batch_command(leave_out=("resume",))
def tonemap(
    batch: BatchOptions,
    inputs: Inputs,
    method: Annotated[Method, _option(LOOK, "How light becomes a picture")] = "llf-lut",
    exposure: Annotated[float, _option(LOOK, "Brighter (above 0) or darker, in stops", metavar="STOPS")] = 0.0,
    gamma: Annotated[float | None, _option(LOOK, "Exponent of the screen instead of the method's own")] = None,
    saturation: Annotated[float, _option(LOOK, "Factor on the colours; 0 is grey")] = 1.0,
    strength: Annotated[float, _option(LOOK, "Factor on local detail, for llf-lut and llf")] = 1.0,
    model: Annotated[str | None, _option(LOOK, "Name, file or hub id of a model", "--model", "-m")] = None,
    setting: Annotated[
        list[str] | None, _option(LOOK, "A method's own setting; repeatable", "--set", metavar="METHOD.KEY=VALUE")
    ] = None,
    sequence: Annotated[
        bool, _option(LOOK, "The inputs are frames: they share smoothed parameters and do not flicker", "--sequence")
    ] = False,
    lut: Annotated[
        Path | None,
        _option(LOOK, "Apply this .cube; one that takes linear light replaces the method", metavar="FILE.cube"),
    ] = None,
    lut_interp: Annotated[Literal["tetrahedral", "trilinear"], _option(LOOK, "Lookup in 3-D tables")] = "tetrahedral",
    resize: Annotated[str | None, _option(FILES, "Percentage, long side, or both", metavar="50%|2048|WxH")] = None,
    format: Annotated[Format | None, _option(FILES, "Kind of picture; else by the suffix of --out, or png")] = None,
    depth: Annotated[Depth | None, _option(FILES, "Bits a sample: png 8 16, tiff 8 16 32, exr 16 32, jpeg 8")] = None,
    quality: Annotated[int | None, _option(FILES, "Of a jpeg", min=1, max=100)] = None,
    input_space: Annotated[InputSpace, _option(FILES, "Primaries of the inputs; auto: as the file says")] = "auto",
    output_space: Annotated[Literal["srgb", "display-p3"], _option(FILES, "Space of the picture")] = "srgb",
    layer: Annotated[str | None, _option(FILES, "Layer of an EXR file", metavar="NAME")] = None,
    lut_out: Annotated[
        str | None, _option(FILES, "Also write the global part as a .cube for grading tools", metavar="FILE.cube|DIR/")
    ] = None,
    sheet: Annotated[
        str | None, _option(CHECKS, "Also write the methods side by side", metavar="FILE.png|DIR/")
    ] = None,
    score: Annotated[bool, _option(CHECKS, "Add TMQI to record and table", "--score")] = False,
    reference: Annotated[
        Path | None, _option(CHECKS, "Add PSNR and SSIM to pictures of the same names here", metavar="DIR")
    ] = None,
    baseline: Annotated[
        str | None, _option(CHECKS, "Methods beside this one in --score and --sheet", metavar="NAME[,NAME]")
    ] = None,
) -> int:
    """Turn HDR pictures into finished pictures for a screen.

    Examples:
      # one file: room_tonemap.png beside it
      attnkit tonemap room.hdr
      # the HDR files of a folder, four at a time, into another
      attnkit tonemap photos/ --out finished/ --jobs 4
      # only what is new or was made with other options
      attnkit tonemap photos/ --out finished/ --update --exposure 0.5
      # methods side by side, with their scores
      attnkit tonemap room.hdr --sheet methods.png --score --baseline reinhard,drago
      # a look for a grading program
      attnkit tonemap room.exr --out room.tif --depth 16 --lut-out room.cube

    Reads Radiance, OpenEXR, PFM, TIFF, PNG and JPEG, whatever they are called. A folder gives its HDR files; others
    must be named. Camera RAW files have to be converted first. Writes PNG, JPEG, TIFF or EXR; alpha, EXIF and
    orientation are carried, and every picture holds the settings that made it.
    """
    from attnkit.runtime.batch import run_files
    from attnkit.runtime.values import parse_settings
    from attnkit.tasks.tonemap.files import TonemapFiles
    from attnkit.tasks.tonemap.methods import valid_settings

    command = TonemapFiles(
        method=method, exposure=exposure, gamma=gamma, saturation=saturation, strength=strength, resize=resize,
        format=format, depth=depth, quality=quality, input_format=batch.input_format, input_space=input_space,
        output_space=output_space, layer=layer, model=model, lut=lut, lut_interp=lut_interp, lut_out=lut_out,
        sheet=sheet, sequence=sequence, score=score, reference=reference,
        baselines=tuple(name.strip() for name in (baseline or "").split(",") if name.strip()),
        own_settings=parse_settings(setting or (), valid_settings()), offline=batch.offline,
    )  # fmt: skip
    return run_files(command, inputs, batch)

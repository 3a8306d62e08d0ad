"""`tonemap` on files: reads a picture, asks the task, writes the picture and what else was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.models.identity import model_identity
from attnkit.pictures.detect import KINDS, sniff
from attnkit.runtime.command import FileCommand, choose_format
from attnkit.runtime.errors import AttnkitError, ItemError, PictureError, UsageError
from attnkit.runtime.items import Column, Context, Estimate, Item, SideOutput, sha256_of

from .methods import METHODS, method_named

if TYPE_CHECKING:
    from attnkit.pictures.picture import Picture
    from attnkit.runtime.outputs import Outputs

    from .cube import Cube
    from .task import TonemapRequest, TonemapResult

SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff", ".exr": "exr"}
DEFAULT_MODEL = "llf-lut"
# a two-core laptop with everything compiled; only --dry-run uses these
SECONDS_PER_MEGAPIXEL = {"llf-lut": 0.1, "llf": 0.5, "drago": 0.2, "reinhard": 0.15, "mantiuk": 0.4, "linear": 0.1}
BYTES_PER_SAMPLE = {"png": 0.55, "jpeg": 0.08, "tiff": 1.0, "exr": 0.8}


@dataclass(frozen=True)
class TonemapFiles(FileCommand):
    """All options of `attnkit tonemap`, and what they mean for one file."""

    method: str = "llf-lut"
    exposure: float = 0.0
    gamma: float | None = None
    saturation: float = 1.0
    strength: float = 1.0
    resize: str | None = None
    format: str | None = None
    depth: int | None = None
    quality: int | None = None
    input_format: str | None = None
    input_space: str = "auto"
    output_space: str = "srgb"
    layer: str | None = None
    model: str | None = None
    lut: Path | None = None
    lut_interp: str = "tetrahedral"
    lut_out: str | None = None
    sheet: str | None = None
    sequence: bool = False
    score: bool = False
    reference: Path | None = None
    baselines: tuple[str, ...] = ()
    own_settings: Mapping[str, Any] = field(default_factory=dict)
    offline: bool = False

    name = "tonemap"
    formats = SUFFIXES
    folder_kinds = frozenset({"radiance", "exr", "pfm", "tiff"})
    folder_suffixes = frozenset({"hdr", "rgbe", "pic", "exr", "pfm"})
    kinds = frozenset(KINDS)
    thread_safe = True

    @property
    def format_given(self) -> bool:  # type: ignore[override]
        return self.format is not None

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        return self.sequence

    def validate(self) -> None:
        from .task import check_request

        check_request(self.request(None), pixels=False)
        if self.sequence and method_named(self.method).parameters is None:
            able = ", ".join(name for name in METHODS if method_named(name).parameters)
            raise UsageError(f"--sequence: method {self.method} has no parameters to share, expected one of {able}")
        for name in self.baselines:
            method_named(name, "--baseline")
        if self.baselines and not (self.score or self.sheet):
            raise UsageError("--baseline: needs --score or --sheet, which show the other methods")
        if self.resize is not None:
            from attnkit.pictures.scaling import parse_resize

            parse_resize(self.resize)
        if self.reference is not None and not self.reference.exists():
            raise UsageError(f"--reference {self.reference}: no such folder or picture")
        if self.lut is not None:
            from .cube import read_cube

            read_cube(self.lut)
        if self.model is not None:
            try:
                model_identity(self.model, self.name)
            except ItemError as error:
                raise UsageError(f"--model: {error}") from error

    def output_format(self, out: str | None) -> str:
        from attnkit.pictures.writing import check_output

        format = choose_format(SUFFIXES, out, self.format)
        check_output(format, self.depth, self.quality, self.output_space)
        if self.quality is not None and format != "jpeg":
            raise UsageError(f"--quality: got {self.quality} for {format}, which is lossless; expected --format jpeg")
        return format

    def side_outputs(self) -> tuple[SideOutput, ...]:
        asked = (("lut", "--lut-out", self.lut_out, ".cube"), ("sheet", "--sheet", self.sheet, ".png"))
        return tuple(SideOutput(name, option, where, suffix) for name, option, where, suffix in asked if where)

    def columns(self) -> tuple[Column, ...]:
        found: list[Column] = []
        if self.score:
            found += [Column("tmqi", "TMQI"), Column("tmqi_s", "S"), Column("tmqi_n", "N")]
            found += [Column(f"tmqi_{name}", f"TMQI {name}") for name in self.baselines]
        if self.reference is not None:
            found += [Column("psnr_db", "PSNR (dB)", 2), Column("ssim", "SSIM", 4)]
        return tuple(found)

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "method": self.method,
            "exposure": self.exposure,
            "gamma": self.gamma,
            "saturation": self.saturation,
            "strength": self.strength,
            "resize": self.resize,
            "format": self.format,
            "depth": self.depth,
            "quality": self.quality,
            "input_space": self.input_space,
            "output_space": self.output_space,
            "layer": self.layer,
            "lut_interp": self.lut_interp,
            "sequence": self.sequence,
            "set": dict(self.own_settings),
        }
        if method_named(self.method).has_model:
            found["model_sha256"] = model_identity(self.model or DEFAULT_MODEL)
        if self.lut is not None:
            found["lut_sha256"] = _hash(self.lut, self.lut.stat().st_mtime_ns)
        return found

    def read_settings(self, path: Path) -> dict[str, Any] | None:
        from attnkit.pictures.headers import read_settings

        return read_settings(path)

    def kind_of(self, path: Path | None, head: bytes) -> str | None:
        return sniff(head, path)

    def folder_takes(self, path: Path, kind: str) -> bool:
        if kind not in self.folder_kinds:
            return False
        if kind not in ("tiff", "exr"):
            return True
        from attnkit.pictures.headers import describe

        try:
            # integer TIFF files are not HDR; a float file that this command made is a result, not an input
            return describe(path).hdr and not self.made(path)
        except PictureError:
            return kind == "exr"

    def resolve_device(self, requested: str) -> str:
        if requested in ("auto", "cpu"):
            return "cpu"
        if self.model is None or not method_named(self.method).has_model:
            raise UsageError(f"--device: got {requested}, expected cpu; the built-in methods have no other device")
        return requested

    def estimate(self, item: Item, format: str) -> Estimate:
        if item.path is None:
            return Estimate()
        from attnkit.pictures.headers import describe
        from attnkit.pictures.scaling import target_size
        from attnkit.pictures.writing import DEPTHS

        info = describe(item.path)
        rows, columns = (info.rows, info.columns)
        if self.resize is not None:
            rows, columns = target_size(self.resize, rows, columns)
        samples = rows * columns * 3
        depth = self.depth or DEPTHS[format][0]
        return Estimate(
            output_bytes=int(samples * depth / 8 * BYTES_PER_SAMPLE[format]) + 1000,
            seconds=round(0.02 + rows * columns / 1e6 * SECONDS_PER_MEGAPIXEL.get(self.method, 0.2), 3),
            memory_bytes=info.rows * info.columns * 12 + samples * 4 * 8,
            size=f"{columns}x{rows}",
        )

    def request(self, pixels: Any, **changed: Any) -> TonemapRequest:
        """The task's request for a picture, without the tables that only a worker has read."""
        from .task import TonemapRequest

        fields: dict[str, Any] = {
            "method": self.method,
            "exposure": self.exposure,
            "gamma": self.gamma,
            "saturation": self.saturation,
            "strength": self.strength,
            "output_space": self.output_space,
            "model": self.model,
            "offline": self.offline,
            "lut_interp": self.lut_interp,
            "settings": self.own_settings,
            "want_lut": self.lut_out is not None,
        }
        return TonemapRequest(pixels, **{**fields, **changed})

    def read(self, item: Item) -> Picture:
        """The picture of an item, at the size that --resize asks for."""
        from attnkit.pictures import read_picture, resize_picture

        source = item.data if item.path is None else item.path
        assert source is not None
        picture = read_picture(source, input_space=self.input_space, layer=self.layer, input_format=self.input_format)
        return picture if self.resize is None else resize_picture(picture, self.resize)

    def prepare(self, items: Sequence[Item]) -> list[Any] | None:
        if not self.sequence:
            return None
        from .sequence import smooth_parameters
        from .task import scene_parameters

        found: dict[int, dict[str, Any]] = {}
        for item in items:
            try:
                request = self.request(self.read(item).pixels, want_lut=False)
            except AttnkitError:
                # its own turn will say what is wrong with it; the frames around it go on without
                continue
            found[item.index] = scene_parameters(request)
        smoothed = dict(zip(found, smooth_parameters(list(found.values())), strict=True))
        return [smoothed.get(item.index) for item in items]

    def open(self, context: Context) -> TonemapWorker:
        from .cube import read_cube

        cube = None if self.lut is None else read_cube(self.lut)
        if method_named(self.method).has_model and not (cube is not None and cube.takes_linear):
            from .learned import mapper_named

            mapper_named(self.model or DEFAULT_MODEL, context.device, self.offline)
        return TonemapWorker(self, cube, context.device)


class TonemapWorker:
    """Runs one picture after another; the tables and the model are loaded."""

    def __init__(self, command: TonemapFiles, cube: Cube | None, device: str) -> None:
        self.command = command
        self.cube = cube
        self.device = device

    def run(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        from .task import tonemap

        command = self.command
        picture = command.read(item)
        depth = command.depth or {"tiff": 8, "exr": 16}.get(outputs.format, 8)
        request = command.request(
            picture.pixels,
            lut=self.cube,
            device=self.device,
            depth=8 if depth == 8 else None,
            want_lut=outputs.wants("lut"),
            parameters=item.payload,
        )
        result = tonemap(request)
        record = {**_facts(picture), **result.record}
        if outputs.wants("main"):
            outputs.write("main", self._encode(picture, result, outputs))
        if result.lut is not None:
            outputs.write("lut", _cube_text(result.lut, outputs.settings))
        if outputs.wants("sheet"):
            outputs.write("sheet", self._sheet(request, outputs))
        if command.score:
            record.update(self._scores(picture, result, request))
        if command.reference is not None:
            compared = self._fidelity(item, result)
            warnings = [*record.get("warnings", ()), *compared.get("warnings", ())]
            record.update(compared, **({"warnings": warnings} if warnings else {}))
        return record

    def _encode(self, picture: Picture, result: TonemapResult, outputs: Outputs) -> bytes:
        from attnkit.pictures import encode_picture

        return encode_picture(
            result.display,
            format=outputs.format,
            depth=self.command.depth,
            quality=self.command.quality,
            space=self.command.output_space,
            alpha=picture.alpha,
            exif=picture.exif,
            settings=outputs.settings,
            grey=picture.grey,
        )

    def _sheet(self, request: TonemapRequest, outputs: Outputs) -> bytes:
        from attnkit.pictures import encode_picture

        from .sheet import sheet_of_methods

        command = self.command
        names = dict.fromkeys((command.method, *(command.baselines or METHODS)))
        return encode_picture(
            sheet_of_methods(request, tuple(names)),
            format="png",
            depth=8,
            space=command.output_space,
            settings=outputs.settings,
        )

    def _scores(self, picture: Picture, result: TonemapResult, request: TonemapRequest) -> dict[str, Any]:
        from .metrics import tmqi
        from .task import tonemap

        own = tmqi(picture.pixels, result.display)
        scores = {"tmqi": own.q, "tmqi_s": own.s, "tmqi_n": own.n}
        for name in self.command.baselines:
            plain = replace(
                request, method=name, model=None, strength=1.0, lut=None, want_lut=False, parameters=None, depth=8
            )
            scores[f"tmqi_{name}"] = tmqi(picture.pixels, tonemap(plain).display).q
        return {key: round(value, 6) for key, value in scores.items()}

    def _fidelity(self, item: Item, result: TonemapResult) -> dict[str, Any]:
        from .metrics import psnr, ssim

        path = _reference_of(item, self.command.reference)
        if path is None:
            return _no_fidelity(f"no reference named {item.stem}.* in {self.command.reference}")
        from attnkit.pictures import read_picture, spaces

        light = read_picture(path).pixels
        space = "rec709" if self.command.output_space == "srgb" else self.command.output_space
        shown = spaces.srgb_encode(spaces.convert(light, "rec709", space)).clip(0.0, 1.0)
        if shown.shape != result.display.shape:
            sizes = f"{shown.shape[1]}x{shown.shape[0]}, expected {result.display.shape[1]}x{result.display.shape[0]}"
            return _no_fidelity(f"reference {path} is {sizes}")
        from attnkit.pictures.writing import quantise

        codes = quantise(result.display, 8), quantise(shown, 8)
        return {
            "psnr_db": round(psnr(*codes), 4),
            "ssim": round(ssim(*codes), 6),
            "reference": str(path),
        }


def _no_fidelity(why: str) -> dict[str, Any]:
    # the picture itself is fine, and worth more than its comparison
    return {"psnr_db": None, "ssim": None, "warnings": [f"{why}; PSNR and SSIM left out"]}


def _facts(picture: Picture) -> dict[str, Any]:
    rows, columns = picture.pixels.shape[:2]
    facts: dict[str, Any] = {
        "kind": picture.kind,
        "size": f"{columns}x{rows}",
        "source_space": picture.source_space,
        "source_space_from": picture.space_source,
        "source_transfer": picture.transfer,
        "grey": picture.grey,
        "alpha": picture.alpha is not None,
        "layer": picture.layer,
        "repaired_pixels": dict(picture.repaired),
        "outside_gamut_pixels": picture.outside_gamut,
    }
    count = sum(picture.repaired.values())
    broken = picture.repaired.get("nan", 0) + picture.repaired.get("inf", 0)
    if broken:
        kinds = ", ".join(f"{number} {kind}" for kind, number in picture.repaired.items() if number)
        facts["warnings"] = [f"{count} pixels repaired ({kinds}); see repaired_pixels in the record"]
    return facts


def _cube_text(cube: Cube, settings: Mapping[str, Any]) -> bytes:
    from .cube import write_cube
    from .learned import CUBE_NOTES

    stored = f"attnkit settings: {json.dumps(settings, sort_keys=True)}"
    return write_cube(cube, (*CUBE_NOTES, stored)).encode()


def _reference_of(item: Item, reference: Path | None) -> Path | None:
    if reference is None or reference.is_file():
        return reference
    for folder in dict.fromkeys((reference / item.below, reference)):
        for path in sorted(folder.glob("*")):
            if path.stem == item.stem and path.suffix.lower() in SUFFIXES:
                return path
    return None


@lru_cache(maxsize=8)
def _hash(path: Path, modified: int) -> str:
    return sha256_of(path)

"""One cube file after another: opened, enhanced tile by tile, written as it goes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attnkit.cubes import create_cube, resumable
from attnkit.runtime.errors import ItemError
from attnkit.runtime.naming import MAIN
from attnkit.runtime.outputs import write_error

from .calibration import Correction, read_reference
from .files import HsiEnhanceFiles, numbers
from .journal import Journal
from .methods import cuts_by_memory
from .source import Region
from .task import Enhancement

if TYPE_CHECKING:
    import numpy as np

    from attnkit.runtime.items import Context, Item
    from attnkit.runtime.outputs import Outputs


class HsiEnhanceWorker:
    """Runs one cube after another."""

    def __init__(self, command: HsiEnhanceFiles, context: Context) -> None:
        self.command = command
        self.context = context

    def run(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        command = self.command
        with command.open_item(item) as reader:
            dtype = self._dtype(reader.info)
            request = command.request(
                correction=self._correction(reader.info), device=self.context.device, written=dtype
            )
            enhancement = Enhancement(reader, request)
            enhancement.tell = outputs.tell
            enhancement.warnings += command.notices(item)
            shown = Shown(command, enhancement)
            record: dict[str, Any] = {"kind": item.kind}
            writing = Writing(command, item, outputs, reader.info, enhancement, dtype) if outputs.wants() else None
            if writing is not None:
                record.update(writing.write(shown))
            else:
                for region, before, after in enhancement.tiles():
                    shown.add(region, before, enhancement.stored(region, after, dtype)[0])
            record.update(enhancement.record())
        if outputs.wants("preview"):
            outputs.write("preview", shown.preview(outputs.settings))
        if outputs.wants("plot"):
            outputs.write("plot", shown.plot(outputs.settings))
        if writing is not None:
            writing.hand_over()
        return record

    def _dtype(self, info: Any) -> np.dtype[Any]:
        import numpy as np

        return info.dtype if self.command.dtype == "same" else np.dtype(self.command.dtype)

    def _correction(self, info: Any) -> Correction:
        command = self.command
        references = {
            name: read_reference(f"--{name}", path, command.open_reference, info.bands, info.columns)
            for name, path in (("dark", command.dark), ("white", command.white))
            if path is not None
        }
        correction = Correction(**references)
        if not correction.usable:
            dark = "0" if command.dark is None else f"--dark {command.dark}"
            raise ItemError(f"--white {command.white}: nowhere above {dark}, expected a bright panel; mixed up?")
        return correction


class Writing:
    """The main output of one item: a hidden partial file, and a journal of the tiles that are in it."""

    def __init__(
        self,
        command: HsiEnhanceFiles,
        item: Item,
        outputs: Outputs,
        info: Any,
        enhancement: Enhancement,
        dtype: np.dtype[Any],
    ) -> None:
        self.outputs = outputs
        self.enhancement = enhancement
        self.dtype = dtype
        self.format = command.format_of(item, outputs.format) or "npy"
        self.info = output_info(info, enhancement)
        partial = outputs.partial()
        self.main = outputs.path() if partial is None else partial
        self.further = {
            suffix: outputs.partial(MAIN, suffix) or self.main.with_name(self.main.name + suffix)
            for suffix in command.further_suffixes(item, outputs.format)
        }
        self.lasting = partial is not None and resumable(self.format)
        request = enhancement.request
        by_memory = cuts_by_memory(request.method, request.model)
        self.journal = Journal(
            self.main.with_name(self.main.name + "-journal"),
            {
                "settings": outputs.settings,
                "device": request.device,
                "memory": request.memory if by_memory else None,
            },
        )
        self.done = self._done() if command.resume and self.lasting else None

    def _done(self) -> dict[Region, int] | None:
        done = self.journal.read()
        values = next(iter(self.further.values())) if self.format == "envi" else self.main
        return done if done and values.is_file() else None

    def write(self, shown: Shown) -> dict[str, Any]:
        """Enhance all tiles into the partial file; returns fields of the record."""
        enhancement, resumed = self.enhancement, self.done is not None
        done: dict[Region, int] = dict(self.done or {})
        whole = False
        try:
            if not resumed:
                # a journal of an earlier file would tell of tiles that the new one does not hold
                self.journal.path.unlink(missing_ok=True)
            writer = self._create(resume=resumed)
            try:
                if self.lasting:
                    self.journal.start(done)
                for region in sorted(done):
                    before = enhancement.source.read(*region.slices)
                    stored = writer.read(*region.slices)
                    enhancement.see(region, before, enhancement.from_stored(region, stored, before))
                    shown.add(region, before, stored)
                for region, before, after in enhancement.tiles(frozenset(done)):
                    stored, clipped = enhancement.stored(region, after, self.dtype)
                    writer.write(stored, *region.slices)
                    shown.add(region, before, stored)
                    done[region] = clipped
                    if self.lasting:
                        self.journal.add(region, clipped)
                writer.close()
                whole = True
            finally:
                if not whole:
                    writer.abort()
        except OSError as error:
            raise write_error(error, self.outputs.place() or self.main) from error
        finally:
            self.journal.close()
            if not whole and not (done and self.lasting):
                self._remove()
        fields: dict[str, Any] = {
            "format": self.format, "dtype": str(self.dtype), "clipped_values": sum(done.values())
        }  # fmt: skip
        if resumed:
            fields["resumed_tiles"] = len(self.done or ())
        return fields

    def hand_over(self) -> None:
        """Give the whole file to the runner, which gives it its name."""
        if self.outputs.place() is None:
            for path in self.further.values():
                path.unlink(missing_ok=True)
            return
        for suffix, path in self.further.items():
            self.outputs.adopt(path, MAIN, suffix, lasting=self.lasting)
        self.outputs.adopt(self.main, lasting=self.lasting, needless=self.journal.path if self.lasting else None)

    def _create(self, *, resume: bool) -> Any:
        return create_cube(
            self.main,
            self.info,
            format=self.format,
            dtype=self.dtype,
            settings=self.outputs.settings,
            history=history(self.enhancement),
            data_path=next(iter(self.further.values()), None),
            resume=resume,
        )

    def _remove(self) -> None:
        for path in (self.main, *self.further.values(), self.journal.path):
            with suppress(OSError):
                path.unlink(missing_ok=True)


class Shown:
    """The bands and the spectrum that the pictures of one item need, gathered while tiles pass.

    Bands and pixels are given by their numbers in the file, of which the cube may be a part.
    """

    def __init__(self, command: HsiEnhanceFiles, enhancement: Enhancement) -> None:
        import numpy as np

        from attnkit.cubes.preview import BLUE_NM, RED_NM, preview_bands

        self.scale = enhancement.radiometry.output_scale
        self.ignore_value = enhancement.source.ignore_value
        self.crop = enhancement.crop
        bands, rows, columns = enhancement.source.shape
        self.wavelengths = enhancement.source.wavelengths
        self.planes: dict[int, Any] = {}
        if command.preview is not None:
            wanted = None
            if command.preview_bands is not None:
                given = numbers("--preview-bands", command.preview_bands, 3)
                wanted = tuple(self._inside("--preview-bands", band, "bands", self.crop.band_range) for band in given)
            self.bands = preview_bands(bands, self.wavelengths, wanted)
            seen = self.wavelengths is not None and min(self.wavelengths) <= BLUE_NM and max(self.wavelengths) >= RED_NM
            self.true_colour = wanted is None and seen
            self.planes = {band: np.zeros((rows, columns), np.float32) for band in self.bands}
        self.pixel = (rows // 2, columns // 2)
        if command.plot_spectra is not None:
            row, column = numbers("--plot-spectra", command.plot_spectra, 2)
            self.pixel = (
                self._inside("--plot-spectra", row, "rows", self.crop.rows),
                self._inside("--plot-spectra", column, "columns", self.crop.columns),
            )
        self.spectra = np.zeros((2, bands), np.float32)

    @staticmethod
    def _inside(option: str, number: int, axis: str, limits: tuple[int, int]) -> int:
        if not limits[0] <= number < limits[1]:
            raise ItemError(f"{option}: got {number}, expected one of the {axis} {limits[0]}:{limits[1]}")
        return number - limits[0]

    def add(self, region: Region, before: Any, stored: Any) -> None:
        """A tile [bands, rows, columns] of the bright input and of the values written."""
        bands, rows, columns = region.slices
        for band, plane in self.planes.items():
            if bands.start <= band < bands.stop:
                plane[rows, columns] = self._bright(stored[band - bands.start])
        row, column = self.pixel
        if rows.start <= row < rows.stop and columns.start <= column < columns.stop:
            place = slice(None), row - rows.start, column - columns.start
            self.spectra[0, bands], self.spectra[1, bands] = before[place], self._bright(stored[place])

    def _bright(self, stored: Any) -> Any:
        """Values written in units of full exposure; NaN where they say that there is none."""
        import numpy as np

        bright = stored.astype(np.float32) / np.float32(self.scale)
        if self.ignore_value is not None:
            bright[stored == self.ignore_value] = np.nan
        return bright

    def preview(self, settings: dict[str, Any]) -> bytes:
        """The PNG of --preview."""
        import numpy as np

        from attnkit.cubes.preview import stretch
        from attnkit.pictures import encode_picture

        planes = [self.planes[band] for band in self.bands]
        # false colours have no common brightness
        picture = stretch(np.stack(planes, -1)) if self.true_colour else np.stack([stretch(one) for one in planes], -1)
        return encode_picture(picture, format="png", depth=8, settings=settings)

    def plot(self, settings: dict[str, Any]) -> bytes:
        """The PNG of --plot."""
        from .chart import draw_lines

        row, column = self.pixel[0] + self.crop.rows[0], self.pixel[1] + self.crop.columns[0]
        return draw_lines(
            [("before, brightened", self.spectra[0]), ("after", self.spectra[1])],
            self.wavelengths,
            title=f"pixel row {row}, column {column}, share of full exposure",
            settings=settings,
            first_band=self.crop.band_range[0],
        )


def output_info(info: Any, enhancement: Enhancement) -> Any:
    """The header of the result: that of the input, cut to the part that was enhanced."""
    crop, factor = enhancement.crop, enhancement.radiometry.reflectance_scale
    found = info.cut(crop.bands, crop.rows, crop.columns)
    return found if factor is None else replace(found, reflectance_scale=factor)


def history(enhancement: Enhancement) -> str:
    """One line on what was done, for the description of the result."""
    radiometry = enhancement.radiometry
    return (
        f"attnkit hsi-enhance: method {enhancement.request.method}, gain {radiometry.gain:g}, "
        f"scale {radiometry.scale:g}, values times {radiometry.output_scale:g}"
    )

"""One cube file after another: opened, enhanced tile by tile, written as it goes."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnkit.cubes import create_cube, resumable
from attnkit.runtime.errors import ItemError
from attnkit.runtime.outputs import write_error

from .calibration import Correction, read_reference
from .files import HsiEnhanceFiles, numbers
from .journal import Journal
from .source import Region
from .task import Enhancement

if TYPE_CHECKING:
    import numpy as np

    from attnkit.runtime.items import Context, Item
    from attnkit.runtime.outputs import Outputs

# beside the cube itself: header, journal, side outputs
SPARE_BYTES = 1_000_000


class HsiEnhanceWorker:
    """Runs one cube after another."""

    def __init__(self, command: HsiEnhanceFiles, context: Context) -> None:
        self.command = command
        self.context = context

    def run(self, item: Item, outputs: Outputs) -> dict[str, Any]:
        command = self.command
        if item.path is None:
            raise ItemError("-: a cube cannot come from standard input; name its file")
        with command.open_reader(item.path, item) as reader:
            dtype = self._dtype(reader.info)
            enhancement = Enhancement(
                reader,
                command.request(
                    correction=self._correction(reader.info),
                    device=self.context.device,
                    integer=dtype.kind in "iu",
                ),
            )
            shown = Shown(command, enhancement)
            record = {"kind": item.kind}
            if outputs.wants():
                record.update(Writing(command, item, outputs, reader, enhancement, dtype).write(shown))
            else:
                for region, before, after in enhancement.tiles():
                    shown.add(region, before, after)
            record.update(enhancement.record())
            if outputs.wants("preview"):
                outputs.write("preview", shown.preview(outputs.settings))
            if outputs.wants("plot"):
                outputs.write("plot", shown.plot(outputs.settings))
        return record

    def _dtype(self, info: Any) -> np.dtype[Any]:
        import numpy as np

        return info.dtype if self.command.dtype == "same" else np.dtype(self.command.dtype)

    def _correction(self, info: Any) -> Correction:
        references = {
            name: read_reference(f"--{name}", path, self.command.open_reader, info.bands, info.columns)
            for name, path in (("dark", self.command.dark), ("white", self.command.white))
            if path is not None
        }
        return Correction(**references)


class Writing:
    """The main output of one item: a hidden partial file, a journal beside it, and the tiles that go into both."""

    def __init__(
        self,
        command: HsiEnhanceFiles,
        item: Item,
        outputs: Outputs,
        reader: Any,
        enhancement: Enhancement,
        dtype: np.dtype[Any],
    ) -> None:
        self.command = command
        self.outputs = outputs
        self.enhancement = enhancement
        self.dtype = dtype
        self.format = command.format_of(item, outputs.format) or "npy"
        self.info = output_info(reader.info, enhancement, dtype)
        self.data_suffix = data_suffix(item) if self.format == "envi" else None
        main = outputs.partial()
        if main is None:
            raise ItemError("--out -: a cube cannot go to standard output; name a file")
        self.main = main
        self.data = outputs.partial("main", self.data_suffix) if self.data_suffix else None
        self.journal = Journal(main.with_name(main.name + "-journal"), {"settings": outputs.settings, "version": 1})

    def write(self, shown: Shown) -> dict[str, Any]:
        """Enhance all tiles into the file and hand it over; returns fields of the record."""
        done = self.journal.read() if self.command.resume and resumable(self.format) else None
        if done is not None and not (self.data or self.main).is_file():
            done = None
        self._check_disk(fresh=done is None)
        clipped = 0
        whole = False
        try:
            writer = self._create(resume=done is not None)
            self.journal.start(done or ())
            try:
                for tile in sorted(done or ()):
                    self._show_again(writer, Region(*tile), shown)
                for region, before, after in self.enhancement.tiles({Region(*tile) for tile in done or ()}):
                    values, count = self.enhancement.stored(region, after, self.dtype)
                    clipped += count
                    writer.write(values, *region.slices)
                    shown.add(region, before, after)
                    self.journal.add(region.as_tuple())
                writer.close()
                whole = True
            finally:
                if not whole:
                    writer.abort()
        except OSError as error:
            raise write_error(error, self.main) from error
        finally:
            self.journal.close()
            if not whole and not resumable(self.format):
                self._remove()
        self.journal.remove()
        self.outputs.adopt(self.main)
        for suffix, path in self._further():
            self.outputs.adopt(path, "main", suffix)
        fields: dict[str, Any] = {"format": self.format, "dtype": str(self.dtype), "clipped_values": clipped}
        if done is not None:
            fields["resumed_tiles"] = len(done)
        return fields

    def _create(self, *, resume: bool) -> Any:
        return create_cube(
            self.main,
            self.info,
            format=self.format,
            dtype=self.dtype,
            settings=self.outputs.settings,
            history=history(self.enhancement),
            data_path=self.data,
            resume=resume,
        )

    def _show_again(self, writer: Any, region: Region, shown: Shown) -> None:
        """A tile of the run before: its comparison and pictures come from what it has written."""
        import numpy as np

        before = self.enhancement.source.read(*region.slices)
        stored = writer.read(*region.slices)
        after = stored.astype(np.float32) / np.float32(self.enhancement.radiometry.output_scale)
        self.enhancement.see(region, before, after)
        shown.add(region, before, after)

    def _check_disk(self, *, fresh: bool) -> None:
        bands, rows, columns = self.enhancement.source.shape
        wanted = bands * rows * columns * self.dtype.itemsize + SPARE_BYTES if fresh else SPARE_BYTES
        free = shutil.disk_usage(self.main.parent).free
        if free < wanted:
            raise ItemError(
                f"{self.main.parent}: {free} bytes free, the result needs {wanted}; make room or name another --out"
            )

    def _further(self) -> list[tuple[str, Path]]:
        return [(self.data_suffix, self.data)] if self.data_suffix and self.data else []

    def _remove(self) -> None:
        for path in (self.main, self.data, self.journal.path):
            if path is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)


class Shown:
    """The bands and the spectrum that the pictures of one item need, gathered while tiles pass."""

    def __init__(self, command: HsiEnhanceFiles, enhancement: Enhancement) -> None:
        import numpy as np

        from attnkit.cubes.preview import preview_bands

        self.command = command
        bands, rows, columns = enhancement.source.shape
        self.wavelengths = enhancement.source.wavelengths
        self.planes: dict[int, Any] = {}
        if command.preview is not None:
            wanted = None if command.preview_bands is None else numbers("--preview-bands", command.preview_bands, 3)
            self.bands = preview_bands(bands, self.wavelengths, wanted)
            self.planes = {band: np.zeros((rows, columns), np.float32) for band in self.bands}
        self.pixel = (rows // 2, columns // 2)
        if command.plot_spectra is not None:
            self.pixel = tuple(numbers("--plot-spectra", command.plot_spectra, 2))  # type: ignore[assignment]
            if self.pixel[0] >= rows or self.pixel[1] >= columns:
                raise ItemError(f"--plot-spectra: got {command.plot_spectra}, the cube has {rows},{columns}")
        self.spectra = np.zeros((2, bands), np.float32)

    def add(self, region: Region, before: Any, after: Any) -> None:
        bands, rows, columns = region.slices
        for band, plane in self.planes.items():
            if bands.start <= band < bands.stop:
                plane[rows, columns] = after[band - bands.start]
        row, column = self.pixel
        if rows.start <= row < rows.stop and columns.start <= column < columns.stop:
            for spectrum, block in zip(self.spectra, (before, after), strict=True):
                spectrum[bands] = block[:, row - rows.start, column - columns.start]

    def preview(self, settings: dict[str, Any]) -> bytes:
        import numpy as np

        from attnkit.cubes.preview import stretch
        from attnkit.pictures import encode_picture

        picture = stretch(np.stack([self.planes[band] for band in self.bands], axis=-1))
        return encode_picture(picture, format="png", depth=8, settings=settings)

    def plot(self, settings: dict[str, Any]) -> bytes:
        from .spectra_plot import plot_spectra

        return plot_spectra(self.spectra, self.wavelengths, self.pixel, settings)


def output_info(info: Any, enhancement: Enhancement, dtype: np.dtype[Any]) -> Any:
    """The header of the result: that of the input, cut to the part that was enhanced."""
    crop = enhancement.crop
    bands, rows, columns = crop.shape

    def kept(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        return None if values is None else tuple(values[band] for band in crop.bands)

    return replace(
        info,
        bands=bands,
        rows=rows,
        columns=columns,
        dtype=dtype,
        wavelengths=kept(info.wavelengths),
        bad_bands=kept(info.bad_bands),
    )


def history(enhancement: Enhancement) -> str:
    """One line on what was done, for the description of the result."""
    radiometry = enhancement.radiometry
    return (
        f"attnkit hsi-enhance: method {enhancement.request.method}, gain {radiometry.gain:g}, "
        f"scale {radiometry.scale:g}, values times {radiometry.output_scale:g}"
    )


def data_suffix(item: Item) -> str:
    """Suffix of the data file of an ENVI result: that of the input's, or .img."""
    if item.kind == "envi" and item.companions and item.companions[0].suffix not in ("", ".hdr"):
        return item.companions[0].suffix
    return ".img"

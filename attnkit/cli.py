"""The command line: names and one-line helps. A command's module is imported only when the command is called."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, NoReturn

import typer

from attnkit import __version__
from attnkit.runtime.commandline import Entry, Family, LazyGroup
from attnkit.runtime.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, AttnkitError

COMMANDS: Mapping[str, Entry | Family] = {
    "tonemap": Entry(
        "attnkit.commands.tonemap:tonemap",
        "Turn HDR pictures into finished pictures for a screen",
        imports=("cv2", "numba", "OpenEXR", "PIL", "tifffile", "safetensors"),
        models=("llf-lut",),
    ),
    "hsi-enhance": Entry(
        "attnkit.commands.hsi_enhance:hsi_enhance",
        "Brighten dark hyperspectral cubes and take out their noise",
        imports=("torch", "numpy", "scipy", "h5py", "spectral", "cv2", "PIL", "safetensors"),
        models=("hsie",),
    ),
    "vlm-ask": Entry(
        "attnkit.commands.vlm_ask:vlm_ask",
        "Ask questions about images, with the model's attention put right",
        imports=("torch", "transformers", "tokenizers", "PIL", "safetensors"),
        models=("tiny-llava",),
    ),
    "bench-kernel": Entry(
        "attnkit.commands.bench_kernel:bench_kernel",
        "Check and time attention operators beside what is there instead",
        imports=("torch", "scipy", "PIL"),
    ),
    "sim-gna": Entry(
        "attnkit.commands.sim_gna:sim_gna",
        "Predict what a sparse attention costs, without running it",
        imports=("numpy", "PIL"),
    ),
    "models": Family(
        "List, show, verify and import the models",
        {
            "list": Entry("attnkit.commands.models:list_models", "List the models, with wildcards"),
            "show": Entry("attnkit.commands.models:show_model", "Show all that is known of a model"),
            "verify": Entry(
                "attnkit.commands.models:verify_models",
                "Check hashes, shapes and a golden output",
                imports=("cv2", "numba", "safetensors", "torch"),
            ),
            "import": Entry(
                "attnkit.commands.models:import_model",
                "Convert a published checkpoint to safetensors",
                imports=("safetensors", "torch"),
            ),
            "sinks": Entry(
                "attnkit.commands.models_sinks:find_model_sinks",
                "Find a language model's attention sinks",
                imports=("torch", "transformers", "PIL"),
            ),
            "heads": Entry(
                "attnkit.commands.models_heads:choose_model_heads",
                "Choose the heads that ACT calibrates",
                imports=("torch", "transformers", "PIL"),
            ),
        },
    ),
    "train": Family(
        "Train a task's default model",
        {
            "tonemap": Entry(
                "attnkit.commands.train_tonemap:train_tonemap",
                "Train the model of tonemap on HDR panoramas",
                imports=("torch", "cv2", "numba", "safetensors"),
            ),
            "hsi-enhance": Entry(
                "attnkit.commands.train_hsi_enhance:train_hsi_enhance",
                "Train the model of hsi-enhance on darkened cubes",
                imports=("torch", "cv2", "pywt", "safetensors"),
            ),
            "vlm-ask": Entry(
                "attnkit.commands.train_vlm_ask:train_vlm_ask",
                "Train the model of vlm-ask on generated scenes",
                imports=("torch", "transformers", "tokenizers", "PIL", "safetensors"),
            ),
        },
    ),
    "eval": Family(
        "Measure a task's results",
        {
            "tonemap": Entry(
                "attnkit.commands.eval_tonemap:eval_tonemap",
                "Score tone-mapped pictures or methods with TMQI",
                imports=("cv2", "numba", "scipy", "safetensors"),
            ),
            "hsi-enhance": Entry(
                "attnkit.commands.eval_hsi_enhance:eval_hsi_enhance",
                "Score enhanced hyperspectral cubes or methods",
                imports=("cv2", "scipy", "h5py", "spectral", "PIL", "safetensors"),
            ),
            "vlm-ask": Entry(
                "attnkit.commands.eval_vlm_ask:eval_vlm_ask",
                "Score answers about images: POPE, CHAIR, MME, VQA",
                imports=("numpy",),
            ),
        },
    ),
    "doctor": Entry("attnkit.commands.doctor:doctor", "Say what runs here, and what is missing for the rest"),
    "config": Family(
        "See where options get their values",
        {"show": Entry("attnkit.commands.config:show_config", "Print each value and its source")},
    ),
}


class Root(LazyGroup):
    """`attnkit` itself."""

    table = COMMANDS


def print_version(wanted: bool) -> None:
    if wanted:
        print(f"attnkit {__version__}")
        raise typer.Exit


app = typer.Typer(name="attnkit", cls=Root, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit", is_eager=True, callback=print_version, expose_value=False
        ),
    ] = False,
) -> None:
    """Attention research as commands that work on files.

    Options go after the command: attnkit COMMAND --help lists them.

    Examples:
      attnkit tonemap examples/hdr --out out/
      attnkit doctor
      attnkit config show tonemap
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point: runs a command and exits with its code (0, 1, 2, 3 or 130)."""
    occupy_descriptors()
    code = run(sys.argv[1:] if arguments is None else arguments)
    try:
        # a stream that was closed before the start is None
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = leave_pipe()
    except OSError as error:
        code = tell(f"standard output: {error.strerror}")
        leave_pipe()
    sys.exit(code)


def occupy_descriptors() -> None:
    """Standard streams that were closed before the start lead nowhere: else the next file that is opened would get
    their numbers, and with them what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number, which is this one
            os.open(os.devnull, os.O_RDWR)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; every error is one line on standard error."""
    from attnkit.runtime.config import current, set_current

    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="attnkit", standalone_mode=False)
        return code if isinstance(code, int) else EXIT_DONE
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        running = current()
        if "--debug" in arguments or (running is not None and running.debug):
            import traceback

            traceback.print_exc()
        return report(error)
    finally:
        set_current(None)


def report(error: Exception) -> int:
    """Prints the one line of an error and returns its exit code."""
    if isinstance(error, BrokenPipeError):
        return leave_pipe()
    if isinstance(error, AttnkitError):
        tell(str(error))
        return error.exit_code
    if isinstance(error, typer.TyperException):
        tell(error.format_message())
        return error.exit_code
    if isinstance(error, typer.Abort):
        return EXIT_INTERRUPTED
    if isinstance(error, ModuleNotFoundError) and error.name:
        from attnkit.runtime.extras import install_line

        line = install_line(error.name)
        if line:
            return tell(f"needs the package {error.name.partition('.')[0]}, which is not installed; run: {line}")
    if isinstance(error, OSError) and error.filename is not None:
        return tell(f"{error.filename}: {error.strerror}")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        # files are written by code that names them, so this was the output of the command itself
        leave_pipe()
        return tell(f"standard output: {error.strerror}")
    if isinstance(error, MemoryError):
        return tell("not enough memory; use smaller inputs, or fewer --jobs where the command has them")
    return tell(f"unexpected {type(error).__name__}: {error}; add --debug for the traceback, and report it with it")


def tell(message: str) -> int:
    from attnkit.runtime.config import current

    running = current()
    command = " ".join(["attnkit", *([running.path] if running and running.path else [])])
    line = " ".join(message.split())
    try:
        print(f"{command}: {line}", file=sys.stderr)
    except OSError:
        leave_pipe()
    return EXIT_FAILED


def leave_pipe() -> int:
    """The reader has gone: whatever is still buffered goes nowhere, quietly."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return EXIT_FAILED

"""`python -m attnkit.tasks.vlm_ask.captioned.train`: the training of smol-llava's projector as a command."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    """Parse the command line, train, and print the provenance as JSON."""
    parser = argparse.ArgumentParser(prog="python -m attnkit.tasks.vlm_ask.captioned.train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="stamps, photographs, easy_vqa, font")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="weight file to write (.safetensors)")
    parser.add_argument("--minutes", type=float, default=35.0, help="most time to train, after the material")
    parser.add_argument("--pictures", type=int, default=4800, help="pictures that are made before the first step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--compile", action="store_true", help="compile the layers first (needs a C++ compiler)")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--resume", action="store_true", help="go on from FILE.checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    given = parser.parse_args()

    from attnkit.runtime.errors import AttnkitError
    from attnkit.tasks.vlm_ask.captioned.training import Recipe, train

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    recipe = Recipe(seed=given.seed, minutes=given.minutes, pictures=given.pictures, precision=given.precision)
    try:
        made = train(
            given.data,
            given.out,
            recipe,
            threads=given.threads,
            resume=given.resume,
            overwrite=given.overwrite,
            compiled=given.compile,
            say=say,
        )
    except AttnkitError as error:
        say(str(error))
        sys.exit(error.exit_code)
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()

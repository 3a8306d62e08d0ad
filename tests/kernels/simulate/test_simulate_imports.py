"""The simulator needs numpy alone."""

from __future__ import annotations

import subprocess
import sys


def test_neither_torch_nor_triton_is_imported() -> None:
    code = (
        "import sys; from attnkit_kernels import simulate as s; from attnkit_kernels.patterns import pattern; "
        "p = pattern('neighborhood', window=(8, 8)); s.simulate((64, 64), p, (16, 16), (16, 8)); "
        "s.verify((64, 64), p, (16, 16), (16, 8)); s.sweep_axis((64, 8, 1, 1, False), 16, 8); "
        "s.cost_named('gna-b200'); s.count(pattern('radial').block_map((4, 8, 8))); "
        "print([name for name in ('torch', 'triton', 'scipy', 'numba') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""What the command `sameas` starts. It has a name of its own, because the packages have common ones.

A `stream.py` of the user's, on PYTHONPATH, would be taken for the package.
"""

import contextlib
import os
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("index", "model", "stream")


def main() -> None:
    """The command line, or one line that names what hides a package of it."""
    here = Path(__file__).resolve().parent
    for name in PACKAGES:
        spec = find_spec(name)
        found = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
        if found is None or found.parent != here / name:
            hidden = "is missing" if found is None else f"is hidden by {found}, which Python finds first"
            sys.exit(
                f"sameas: error: its package {name!r} {hidden}; change PYTHONPATH, or install sameas again"
            )
    from stream.interrupts import Interrupted, interruptible

    try:
        with interruptible():
            from stream.cli import main as start

            start()
    except Interrupted as end:  # without waiting for threads, which may be anywhere
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(end.code)


if __name__ == "__main__":
    main()

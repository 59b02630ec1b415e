"""`python -m hw_fakes.vscu --directory DIR [--port N]`: the fake control unit on its own."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from hw_fakes.vscu.unit import JAR, find_java, prepare


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hw_fakes.vscu", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="where it keeps its data")
    parser.add_argument("--port", type=int, default=8088)
    options, more = parser.parse_known_args()
    java = find_java()
    if java is None:
        sys.exit("no Java 16 or newer was found")
    prepare(options.directory, port=options.port)
    os.chdir(options.directory)
    os.execv(java, [str(java), "-Xmx64m", "-jar", str(JAR), "--server.address=127.0.0.1", *more])


if __name__ == "__main__":
    main()

"""Capture the bytes of public receipt libraries again: `python -m tests.producers.capture FOLDER`.

FOLDER is a scratch folder for the libraries. Needs Node.js with npm, and for escpos-php a PHP with intl and
the sources of the library (`--php SOURCES`). The bytes in tests/data/producers were made with the versions
below; the tests read these files and need none of this.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
DATA = HERE.parent / "data" / "producers"
NPM = (
    "escpos@2.5.2", "@node-escpos/core@0.6.0", "node-thermal-printer@4.6.1", "receiptline@4.0.4",
    "@point-of-sale/receipt-printer-encoder@4.0.1", "esc-pos-encoder@3.0.0", "react-thermal-printer@0.22.0",
    "react@18", "react-dom@18", "escpos-buffer@4.1.0", "@tillpos/xml-escpos-helper@0.3.1",
)  # fmt: skip
PYPI = ("PyESCPOS==0.4", "escpos-thermal==1.0.0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--php", type=Path, help="the folder src of escpos-php")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    DATA.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    # Without their drivers for USB and serial ports, which want a compiler.
    npm = [
        "npm",
        "install",
        "--legacy-peer-deps",
        "--ignore-scripts",
        "--omit=optional",
        "--no-audit",
    ]
    subprocess.run([*npm, *NPM], cwd=folder, check=True)
    subprocess.run(["node", HERE / "npm.mjs", DATA], cwd=folder, check=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", *PYPI], check=True)
    subprocess.run([python, HERE / "pypi.py", DATA], check=True)
    if options.php is not None:
        subprocess.run(["php", HERE / "escpos.php", DATA, options.php], check=True)


if __name__ == "__main__":
    sys.exit(main())

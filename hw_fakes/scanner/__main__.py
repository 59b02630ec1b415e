"""`python -m hw_fakes.scanner`: a barcode scanner on a pty; what it scans comes by the control interface."""

from __future__ import annotations

from hw_fakes.control import alone, run_alone
from hw_fakes.scanner.peer import FakeScanner

SUFFIXES = {
    "cr": "\r",
    "lf": "\n",
    "crlf": "\r\n",
    "tab": "\t",
    "nul": "\0",
    "etx": "\x03",
    "none": "",
}

parser = alone("scanner", __doc__)
parser.add_argument("--suffix", choices=sorted(SUFFIXES), default="cr")
parser.add_argument("--prefix", default="")
options = parser.parse_args()
run_alone(
    "scanner",
    FakeScanner(prefix=options.prefix, suffix=SUFFIXES[options.suffix], link=options.link),
    options.control,
)

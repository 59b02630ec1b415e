"""`python -m hw_fakes.display`: a customer display on a pty, shown in the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path

from hw_fakes.control import alone, run_alone
from hw_fakes.display.peer import FakeDisplay

parser = alone("display", __doc__)
parser.add_argument("--protocol", choices=["cd5220", "escpos"], default="cd5220")
parser.add_argument("--png", type=Path, help="a file that always shows the glass")
options = parser.parse_args()


def show(display: FakeDisplay) -> None:
    print(display.glass.text(), flush=True)
    if options.png is not None:
        options.png.write_bytes(display.picture())


run_alone(
    "display",
    FakeDisplay(options.protocol, link=options.link, on_change=show),
    options.control,
)

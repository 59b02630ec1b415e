"""`python -m hw_fakes.scale`: a scale on a pty; its pan is loaded through the control interface."""

from __future__ import annotations

from decimal import Decimal
from typing import get_args

from hw_fakes.control import alone, run_alone
from hw_fakes.scale.peer import FakeScale, Protocol

parser = alone("scale", __doc__)
parser.add_argument("--protocol", choices=get_args(Protocol), default="toledo")
parser.add_argument("--capacity", type=Decimal, default=Decimal(15), help="kg")
parser.add_argument("--settle", type=float, default=0.8, help="seconds until it is at rest")
options = parser.parse_args()
run_alone(
    "scale",
    FakeScale(
        options.protocol,
        link=options.link,
        capacity_kg=options.capacity,
        settle_s=options.settle,
    ),
    options.control,
)

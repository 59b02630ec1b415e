"""`python -m tests.support.pictures`: the README's pictures, taken of the running product."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hw_fakes.cloud.server import FakeCloud
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.printer.render import to_png
from hw_fakes.vscu.unit import ExternalUnit
from tests.support.browser import chromium
from tests.support.shop import TOKENS, a_sale, make_settings, open_shop

FOLDER = Path(__file__).parents[2] / "docs/pictures"
# The one that is shown on paper: discounts, a buyer, two payments.
RICH_SALE = {
    "tillReceiptNo": "POS-004711",
    "buyer": {"pin": "P051234567X", "name": "Kiboko Safaris Limited"},
    "lines": [
        {
            "itemCode": "KE2NTXU0000003", "name": "Cooking oil 5L", "quantity": "2",
            "unitPrice": "1450.00", "taxCode": "B", "discountPercent": 10,
        },
        {
            "itemCode": "KE2NTXU0000004", "name": "Café Kenya AA, medium roast, whole bean 500g",
            "quantity": "1", "unitPrice": "850.00", "taxCode": "B",
        },
        {
            "itemCode": "KE2NTXU0000002", "name": "Ordinary bread 400g", "quantity": "1",
            "unitPrice": "65.00", "taxCode": "A",
        },
    ],
    "payments": [
        {"method": "MOBILE_MONEY", "amount": "3000.00", "reference": "TJ12XYZ890"},
        {"method": "CASH", "amount": "600.00"},
    ],
    "total": "3525.00",
}  # fmt: skip


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "unit").mkdir()
        async with (
            ExternalUnit(home / "unit") as unit,
            FakePrinter() as printer,
            FakePrinter() as old,
            FakePrinter() as kitchen,
            FakeCloud() as cloud,
        ):
            settings = make_settings(
                home,
                unit.url,
                tills=[{"id": till, "printer": "counter"} for till in TOKENS],
                printers={
                    "counter": {"port": printer.device_path, "baud": 115200},
                    "old": {"port": old.device_path, "confirm": "none"},
                    "kitchen": {"port": kitchen.device_path, "baud": 115200},
                },
                cloud={"url": cloud.url, "interval_s": 0.1},
                cloud_token=cloud.token,
            )
            async with open_shop(settings) as shop, chromium("/usr/bin/chromium") as browser:
                await shop.till().sell("key", RICH_SALE)
                for number in range(5):
                    till = shop.till(f"till-{number % 3 + 1}")
                    await till.sell(f"key-{number}", a_sale(tillReceiptNo=f"POS-{number:06d}"))
                slips = await printer.wait_for_slips(6, 30)
                await cloud.wait_for(6, 30)
                (FOLDER / "receipt.png").write_bytes(to_png(slips[0]))
                page = await browser.new_page(viewport={"width": 400, "height": 800})
                await page.goto(shop.gateway.url + "/")
                await page.screenshot(path=str(FOLDER / "status.png"), full_page=True)
                kitchen.remove_paper()
                for name in ("old", "kitchen"):
                    await till.sell(f"at-{name}", a_sale(printer=name))
                await page.goto(shop.gateway.url + "/counter")
                await page.wait_for_selector("text=Did it come out?")
                await page.wait_for_selector("text=paper out")
                await page.screenshot(path=str(FOLDER / "counter.png"), full_page=True)


if __name__ == "__main__":
    asyncio.run(main())

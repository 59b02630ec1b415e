"""The payments' pages in a real browser on a phone: what a cashier, a manager and a technician see there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page

from gateway.clock import micros
from gateway.domain.payment import Act, Evidence, Reason, Source, Verdict
from gateway.ids import new_id
from gateway.payments.ledger import Ledger
from gateway.store import checkouts, payments
from gateway.store.payments import NewPush, PaymentRow
from hw_fakes.vscu.unit import UnitControl
from tests.support.browser import PHONE
from tests.support.shop import OpenShop, a_sale, make_settings, open_shop

NUMBER = "2547083741{:02d}"
RAW = b'{"Body":{"stkCallback":{"ResultCode":0,"MSISDN":254708374101}}}'


class Story:
    """Payments with a past, told to the gateway's own ledger as its parts would tell it."""

    def __init__(self, shop: OpenShop) -> None:
        self.shop = shop
        self.db, self.clock = shop.gateway.db, shop.gateway.clock
        self.ledger = Ledger(self.db, self.clock)
        self.count = 0

    async def push(self, *words: Evidence, raw: bytes | None = None, **changes: Any) -> str:
        self.count += 1
        at = micros(self.clock.now())
        values: dict[str, Any] = {
            "id": new_id(at), "till_id": "till-1", "idem_key": f"k{self.count}", "body_digest": "0" * 64,
            "checkout_id": None, "sale_ref": f"MPOS-{self.count:04d}", "amount_cents": 45_000,
            "phone": NUMBER.format(self.count), "account_ref": f"R{self.count}",
            "token_hash": f"{self.count:064d}", "at": at,
        } | changes  # fmt: skip
        new = NewPush(**values)
        await self.db.write(lambda conn: payments.insert_push(conn, new))
        sent = (
            Evidence(Source.PUSH, Verdict.SENDING),
            Evidence(Source.PUSH, Verdict.ACCEPTED, "0",
                     checkout_request_id=f"ws_CO_25112026101530417{new.phone[-9:]}"),
        )  # fmt: skip
        for word in (*sent, *words):
            at = micros(self.clock.now())
            fields = {"sent_at": at} if word.verdict is Verdict.SENDING else {}
            await self.ledger.hear(new.id, word, raw if word in words else None, **fields)
        return new.id

    async def direct(self, receipt: str, amount_cents: int) -> str:
        """A customer pays the till without being asked."""
        at = micros(self.clock.now())
        new = new_id(at)
        await self.db.write(
            lambda conn: payments.insert_found(
                conn, payment_id=new, receipt=receipt, amount_cents=amount_cents, source=Source.C2B,
                account_ref="MARY W", payer="2547*****149", paid_at=at, at=at,
            )
        )  # fmt: skip
        return new


def paid(receipt: str, amount_cents: int = 45_000) -> Evidence:
    return Evidence(
        Source.CALLBACK, Verdict.PAID, "0", receipt=receipt, amount_cents=amount_cents,
        note="from the callback",
    )  # fmt: skip


UNKNOWN = Evidence(Source.CLOCK, Verdict.DEADLINE)


async def everything(told: Story) -> dict[str, str]:
    """One of each kind, by what it is."""
    found = {"waiting": await told.push()}
    found["unknown"] = await told.push(UNKNOWN)
    found["paid"] = await told.push(paid("UKP1AB2CD3"), raw=RAW)
    found["other amount"] = await told.push(paid("UKP1AB2CD4", 40_000))
    late = await told.push(UNKNOWN)
    await told.ledger.act(late, Act.SALE_WITHOUT_IT, "till-1")
    await told.ledger.hear(late, paid("UKP1AB2CD5"))
    found["late"] = late
    found["cancelled"] = await told.push(
        Evidence(Source.CALLBACK, Verdict.NOT_PAID, "1032", Reason.CANCELLED)
    )
    found["nobody's"] = await told.direct("UKP1AB2CD6", 120_000)
    return found


async def fits(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


async def the_row(shop: OpenShop, payment_id: str) -> PaymentRow:
    row = await shop.gateway.db.read(lambda conn: payments.by_id(conn, payment_id))
    assert row is not None
    return row


async def test_what_is_open_is_seen_live_and_fits_a_phone(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        page = await browser.new_page(viewport=PHONE)
        problems: list[str] = []
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(shop.gateway.url + "/payments")
        assert "No customer is being asked" in await page.inner_text("main")
        told = Story(shop)
        first = await told.push()
        # By itself, through the event.
        await page.wait_for_selector(f"a[href='/payments/{first}']")
        shown = await page.inner_text("main")
        assert "Ask the customer to check their phone" in shown
        assert "Mwambie mteja aangalie simu" in shown
        assert " s" in shown
        await told.ledger.hear(first, paid("UKP1AB2CD0"))
        await page.wait_for_selector("text=Money came, no receipt")
        found = await everything(told)
        reply = await shop.till().sell("cash", a_sale())
        await shop.gateway.db.write(
            lambda conn: checkouts.note_unpaid(
                conn, invoice_id=reply.json["invoiceId"], position=0, till_id="till-1",
                sale_ref="POS-9", amount_cents=29_700, reference="UKP1AB2CD9", at=1,
            )
        )  # fmt: skip
        await page.goto(shop.gateway.url + "/payments")
        shown = await page.inner_text("main")
        for words in (
            "Status unknown", "Money came, no receipt", "nobody has claimed", "Refund due",
            "Receipt, no money", "Alarms of two days", "Money came for a sale that was settled without it",
            "The customer paid 400, not 450", "2547*****149", "2547*****102",
        ):  # fmt: skip
            assert words in shown
        await fits(page)
        content = await page.content()
        assert "254708374" not in content
        assert "708374102" not in content
        assert "MARY" not in content
        # The front page counts them and leads there.
        await page.goto(shop.gateway.url + "/")
        card = await page.inner_text("section:has(h2:text('M-Pesa'))")
        assert "1 asked now, 1 unknown" in card
        assert "1 to give back" in card
        assert "1 receipt without money" in card
        await fits(page)
        # And every story fits, too.
        for payment_id in found.values():
            await page.goto(f"{shop.gateway.url}/payments/{payment_id}")
            await fits(page)
            assert "254708374" not in await page.content()
        await page.goto(f"{shop.gateway.url}/invoices/{reply.json['invoiceId']}")
        assert "no money known" in await page.inner_text("main")
        await fits(page)
        assert all(url.startswith(shop.gateway.url) for url in asked)
        assert problems == []
        await page.close()


async def test_without_javascript_and_a_form_with_a_wrong_code(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        found = await everything(Story(shop))
        context = await browser.new_context(java_script_enabled=False, viewport=PHONE)
        page = await context.new_page()
        await page.goto(shop.gateway.url + "/payments")
        await page.click(f"a[href='/payments/{found['paid']}']")
        await page.wait_for_selector("h1:has-text('PAID')")
        shown = await page.inner_text("main")
        assert "M-Pesa's message" in shown
        assert "from the callback" not in shown
        # What M-Pesa sent is a customer's: a till's code does not open it, a technician's does.
        form = page.locator("form:has(button[value=details])")
        await form.locator("input[name=code]").fill("token-of-till-number-1")
        await form.locator("button").click()
        assert "technician's code" in await page.inner_text("[role=alert]")
        assert "MSISDN" not in await page.content()
        form = page.locator("form:has(button[value=details])")
        await form.locator("input[name=code]").fill("code-of-wanjiru")
        await form.locator("button").click()
        await page.wait_for_selector("main:has-text('from the callback')")
        shown = await page.inner_text("main")
        assert "from the callback" in shown
        assert '"MSISDN":254708374101' in shown
        await fits(page)
        await context.close()


async def test_what_a_customer_typed_cannot_become_a_script(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        told = Story(shop)
        name = "<script>alert(1)</script>"
        payment_id = await told.push(
            Evidence(Source.CALLBACK, Verdict.NOT_PAID, name, Reason.FAILED, note=name),
            raw=name.encode(), sale_ref=name,
        )  # fmt: skip
        for path in ("/payments", f"/payments/{payment_id}"):
            body = (await shop.till().request("GET", path)).body
            assert name.encode() not in body
            assert b"&lt;script&gt;" in body
        details = await shop.till().request(
            "POST", f"/payments/{payment_id}", data={"do": "details", "code": "code-of-wanjiru"}
        )
        assert details.status == 200
        assert name.encode() not in details.body


async def test_a_page_for_what_is_not_there(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        assert (await shop.till().request("GET", "/payments/nothing")).status == 404
        answer = await shop.till().request(
            "POST", "/payments/nothing", data={"do": "check", "code": "code-of-wanjiru"}
        )
        assert answer.status in (404, 409)


async def screenshots(shop: OpenShop, browser: Browser, folder: Path) -> None:
    """For a person to look at."""
    found = await everything(Story(shop))
    page = await browser.new_page(viewport=PHONE, device_scale_factor=2)
    pages = {"payments": "/payments", "status": "/", "reports": "/reports"}
    pages |= {name: f"/payments/{payment_id}" for name, payment_id in found.items()}
    for name, path in pages.items():
        await page.goto(shop.gateway.url + path)
        await page.screenshot(path=str(folder / f"{name}.png"), full_page=True)
    await page.close()

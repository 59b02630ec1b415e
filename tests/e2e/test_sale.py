"""The sale, end to end: a till over HTTP, a real SQLite file, the unit's JVM."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.domain.signing import SigningState
from gateway.store import events, invoices
from hw_fakes.vscu.unit import UnitControl
from tests.support.shop import TOKENS, a_sale, make_settings, open_shop


async def test_a_sale_becomes_a_signed_receipt(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        reply = await shop.till().sell("key-1", a_sale(tillReceiptNo="POS-7"))
        assert reply.status == 201, reply.json
        (entry,) = await unit.journal()
        answer = reply.json
        assert answer["state"] == "SIGNED"
        assert answer["invcNo"] == entry["invcNo"] == 1
        assert answer["rcptNo"] == entry["rcptNo"]
        assert answer["totRcptNo"] == entry["totRcptNo"]
        assert answer["rcptSign"] == entry["rcptSign"]
        assert answer["intrlData"] == entry["intrlData"]
        assert answer["cuInvoiceNo"] == f"KRACU0300000001/{entry['rcptNo']}"
        assert answer["total"] == "297.00"
        assert answer["totalTax"] == "32.00"
        assert entry["trdInvcNo"] == "POS-7"
        assert answer["qr"].endswith("A000123456B00" + entry["rcptSign"])
        assert answer["ceiling"]["state"] == "ONLINE"


async def test_the_same_key_gives_the_same_bytes_also_after_a_restart(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    sale = a_sale()
    async with open_shop(settings) as shop:
        first = await shop.till().sell("key-1", sale)
        again = await shop.till().sell("key-1", sale)
        read = await shop.till("till-2").request("GET", f"/v1/invoices/{first.json['invoiceId']}")
    async with open_shop(settings) as shop:
        later = await shop.till().sell("key-1", sale)
    assert first.body == again.body == later.body == read.body
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == later.headers["Idempotent-Replayed"] == "true"
    assert len(await unit.journal()) == 1


async def test_two_hundred_posts_of_one_sale_give_one_receipt_and_identical_bodies(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till, sale = shop.till(), a_sale()
        replies = await asyncio.gather(*(till.sell("one-key", sale) for _ in range(200)))
    assert {reply.status for reply in replies} == {201}
    assert len({reply.body for reply in replies}) == 1
    assert len(await unit.journal()) == 1


async def test_five_hundred_sales_from_eight_tills_have_no_gap(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:

        async def work(name: str, count: int) -> list[int]:
            till = shop.till(name)
            replies = [await till.sell(f"{name}-{n}", a_sale()) for n in range(count)]
            assert {reply.status for reply in replies} == {201}
            return [reply.json["rcptNo"] for reply in replies]

        counts = [63, 63, 63, 63, 62, 62, 62, 62]
        given = await asyncio.gather(
            *(work(name, count) for name, count in zip(TOKENS, counts, strict=True))
        )
    numbers = sorted(number for numbers in given for number in numbers)
    assert numbers == list(range(1, 501))
    journal = await unit.journal()
    assert [entry["rcptNo"] for entry in journal] == list(range(1, 501))
    assert [entry["invcNo"] for entry in journal] == list(range(1, 501))


async def test_another_body_under_a_used_key_is_refused(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        await shop.till().sell("key-1", a_sale(tillReceiptNo="A"))
        other = await shop.till().sell("key-1", a_sale(tillReceiptNo="B"))
        same_fields_in_another_order = await shop.till().request(
            "POST",
            "/v1/invoices",
            key="key-1",
            json=dict(reversed(list(a_sale(tillReceiptNo="A").items()))),
        )
        other_till = await shop.till("till-2").sell("key-1", a_sale(tillReceiptNo="B"))
    assert (other.status, other.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert same_fields_in_another_order.status == 201
    assert other_till.status == 201
    assert len(await unit.journal()) == 2


async def test_a_replay_outlives_a_change_of_settings(unit: UnitControl, shop_dir: Path) -> None:
    """The printer is gone and a sale may have one line now: what was told is told again."""
    printers = {"counter": {"port": str(shop_dir / "nowhere"), "confirm": "none"}}
    with_printer = make_settings(shop_dir, unit.url, printers=printers)
    sale = a_sale(printer="counter")
    note = {"tillReceiptNo": "CN-1", "reason": "06", "printer": "counter"}
    async with open_shop(with_printer) as shop:
        first = await shop.till().sell("key-1", sale)
        path = f"/v1/invoices/{first.json['invoiceId']}/credit-notes"
        credited = await shop.till().request("POST", path, key="note", json=note)
        assert (first.status, credited.status) == (201, 201)
    async with open_shop(make_settings(shop_dir, unit.url, api={"max_lines": 1})) as shop:
        again = await shop.till().sell("key-1", sale)
        note_again = await shop.till().request("POST", path, key="note", json=note)
        reused = await shop.till().sell("key-1", {**sale, "tillReceiptNo": "other"})
        new = await shop.till().sell("key-2", sale)
    assert (again.status, again.body) == (201, first.body)
    assert (note_again.status, note_again.body) == (201, credited.body)
    assert (reused.status, reused.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (new.status, new.json["code"]) == (422, "INVOICE_INVALID")
    assert len(await unit.journal()) == 2


async def test_credit_notes_of_one_sale_at_once_are_one(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        sale = await shop.till().sell("sale", a_sale())
        path = f"/v1/invoices/{sale.json['invoiceId']}/credit-notes"
        notes = await asyncio.gather(
            *(
                shop.till(f"till-{n}").request(
                    "POST", path, key=f"note-{n}", json={"tillReceiptNo": f"CN-{n}", "reason": "06"}
                )
                for n in range(1, 9)
            )
        )
        assert sorted(note.status for note in notes) == [201] + [409] * 7
    assert [entry["rcptTyCd"] for entry in await unit.journal()] == ["S", "R"]


async def test_a_credit_note_takes_the_whole_sale_back_once(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till = shop.till()
        sale = await till.sell("sale", a_sale())
        path = f"/v1/invoices/{sale.json['invoiceId']}/credit-notes"
        body = {"tillReceiptNo": "CN-1", "reason": "06"}
        note = await till.request("POST", path, key="note", json=body)
        again = await till.request("POST", path, key="note", json=body)
        second = await till.request("POST", path, key="note-2", json=body)
        of_note = await till.request(
            "POST", f"/v1/invoices/{note.json['invoiceId']}/credit-notes", key="n3", json=body
        )
    assert note.status == 201, note.json
    assert note.body == again.body
    assert note.json["label"] == "NC"
    assert note.json["originalCuInvoiceNo"] == sale.json["cuInvoiceNo"]
    assert (second.status, second.json["code"]) == (409, "ALREADY_CREDITED")
    assert (of_note.status, of_note.json["code"]) == (422, "CREDIT_NOTE_INVALID")
    journal = await unit.journal()
    assert [(e["rcptTyCd"], e["orgInvcNo"]) for e in journal] == [("S", 0), ("R", 1)]
    # NS and NC share one counter in Kenya (etims.md 4.1).
    assert [e["rcptNo"] for e in journal] == [1, 2]


async def test_a_refusal_is_told_kept_and_burns_no_number(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till = shop.till()
        await unit.knobs(rejectNext=1, rejectCode="913", rejectMessage="Code value error")
        sale = a_sale()
        refused = await till.sell("bad", sale)
        again = await till.sell("bad", sale)
        good = await till.sell("good", a_sale())
        row = await shop.gateway.db.read(lambda conn: invoices.by_key(conn, "till-1", "bad"))
    assert (refused.status, refused.json["code"]) == (422, "UNIT_REFUSED")
    assert refused.json["unitCode"] == "913"
    assert refused.body == again.body
    assert row is not None
    assert row.state is SigningState.REJECTED
    assert good.json["invcNo"] == 1


async def test_events_tell_the_story_and_resume(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till = shop.till()
        sale = await till.sell("key-1", a_sale())
        story = await shop.gateway.db.read(lambda conn: events.story(conn, sale.json["invoiceId"]))
        assert [event.kind for event in story] == [
            "invoice.received",
            "invoice.signing",
            "receipt.signed",
        ]
        headers = {**till.headers, "Last-Event-ID": str(story[0].id)}
        async with shop.session.get(f"{till.url}/v1/events", headers=headers) as stream:
            seen = []
            async for line in stream.content:
                if line.startswith(b"event: "):
                    seen.append(line[7:].strip().decode())
                if b"receipt.signed" in line:
                    break
        assert seen[0] == "invoice.signing"
        assert seen[-1] == "receipt.signed"
        other = {**shop.till("till-2").headers, "Last-Event-ID": "0"}
        async with shop.session.get(f"{till.url}/v1/events", headers=other) as stream:
            await shop.till("till-2").sell("mine", a_sale())
            subjects = []
            async for line in stream.content:
                subjects.append(line)
                if line == b"event: receipt.signed\n":
                    break
        assert sale.json["invoiceId"].encode() not in b"".join(subjects)

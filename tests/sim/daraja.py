"""Daraja and the customers of the simulation: prompts, wallets' shillings, lost and doubled callbacks.

It speaks Daraja's own JSON, so that the gateway's client and its readers work as in a shop. `journal` is
the truth: one entry for each shilling that moved.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from tests.sim.daraja_words import (
    C2B_TOKEN,
    EAT,
    NO_LIST,
    PAYERS,
    SHORTCODE,
    SPIKE,
    Answer,
    Moved,
    Prompt,
    callback,
    error,
    forged,
    payer_of,
    told,
)
from tests.sim.relay import Relay
from tests.sim.world import World

# A prompt is gone from the phone by then, in seconds (daraja.md 4.4: 60 s, on some phones three minutes).
PROMPT_S = (60.0, 170.0)


class SimDaraja:
    """Outlives the gateway. `row_of` tells the stored payment of a push's token: (payment, sale, state)."""

    def __init__(self, world: World) -> None:
        chance = world.chance
        self.world = world
        self.relay = Relay(world)
        self.journal: list[Moved] = []
        self.prompts: list[Prompt] = []
        self.trouble = chance.choice((0.0, 0.1, 0.25, 0.5))
        self.c2b = chance.random() < 0.7
        # An address for callbacks that leads nowhere: what is paid is learnt by asking.
        self.mute = chance.random() < 0.3
        # A till (Buy Goods) has no references; how its confirmations show who has paid (daraja.md 12).
        self.till = chance.random() < 0.5
        self.payer = chance.choice(PAYERS)
        # Until then Pull answers as for a short code that was never registered. Virtual seconds.
        self.listed_from_s = chance.choice((0.0, 0.0, 0.0, 1500.0, 4000.0))
        self.row_of: Callable[[str], tuple[str, tuple[str, str], str] | None] = lambda _: None
        self._token = 0
        self._number = 0
        self._asked_s: list[float] = []
        self._tasks: set[asyncio.Future[None]] = set()

    # --- the wire ---------------------------------------------------------------------------------

    async def answer(self, path: str, body: dict[str, Any], bearer: str) -> Answer | None:
        """(status, body), or None when no answer ever comes."""
        await asyncio.sleep(self.world.delay())
        if path.startswith("/oauth/"):
            return self._oauth()
        if self.world.happens(self.trouble / 10):
            self._token += 1  # the old one is worth nothing any more
        if bearer != f"token-{self._token}":
            return error(404, "404.001.03", "Invalid Access Token")
        match path:
            case "/mpesa/stkpush/v1/processrequest":
                return await self._push(body)
            case "/mpesa/stkpushquery/v1/query":
                return self._query(body)
            case "/pulltransactions/v1/query":
                return self._pull(body)
            case "/mpesa/reversal/v1/request":
                return self._reverse(body)
            case "/mpesa/transactionstatus/v1/query":
                return self._status(body)
        return error(404, "404.001.01", "Resource not found")

    def _oauth(self) -> Answer | None:
        if self.world.happens(self.trouble / 4):
            return self.world.chance.choice((None, (503, b"<html>"), (400, b"")))
        self._token += 1
        token = {"access_token": f"token-{self._token}", "expires_in": "3599"}
        return 200, json.dumps(token).encode()

    async def _push(self, body: dict[str, Any]) -> Answer | None:
        world, chance = self.world, self.world.chance
        fault = None
        if world.happens(self.trouble):
            fault = chance.choice(
                ("never", "429", "busy", "503", "lost", "slow", "refused", "half", "500")
            )
            world.trace(f"push fault {fault}")
        if fault == "never":
            return None
        if fault == "429":
            return 429, SPIKE
        if fault == "busy":
            return error(500, "500.003.02", "System is busy. Please try again in few minutes.")
        if fault == "503" and chance.random() < 0.5:
            return 503, b"<html>"
        if fault == "refused":
            refusal = {
                "ResponseCode": "1",
                "ResponseDescription": "Rejected",
                "CustomerMessage": "Rejected",
            }
            return 200, json.dumps(refusal).encode()
        now = world.loop.time()
        if any(p.phone == body["PhoneNumber"] and p.ends_s > now for p in self.prompts):
            world.trace("push locked")
            return error(
                500,
                "500.001.1001",
                "Unable to lock subscriber, a transaction is already in process for the current subscriber",
            )
        prompt = self._open(body)
        if fault == "500":
            return error(500, "500.003.1001", "Internal Server Error")
        if fault == "503":
            return 503, b"<html>"
        if fault == "lost":
            return None
        if fault == "slow":
            await asyncio.sleep(chance.uniform(0, 60))
        said = {
            "MerchantRequestID": prompt.merchant,
            "CheckoutRequestID": prompt.request,
            "ResponseCode": "0",
            "ResponseDescription": "Success. Request accepted for processing",
            "CustomerMessage": "Success. Request accepted for processing",
        }
        raw = json.dumps(said).encode()
        return 200, raw[: len(raw) // 2] if fault == "half" else raw

    def _open(self, body: dict[str, Any]) -> Prompt:
        """The phone rings. By now the intent must be durable, and no other prompt of this sale open."""
        world, chance = self.world, self.world.chance
        now = world.loop.time()
        token = body["CallBackURL"].rsplit("/", 1)[1]
        found = self.row_of(token)
        if found is None:
            world.problems.append("a push was sent for which there is no row")
            found = ("?", ("?", body["AccountReference"]), "?")
        _, sale, money = found
        if money != "SENDING" and not any(p.token == token for p in self.prompts):
            world.problems.append(f"a push of {sale} was sent while its row is {money}")
        if any(p.token == token for p in self.prompts):
            world.problems.append(f"the push of {sale} was sent twice")
        if any(p.sale == sale and p.ends_s > now for p in self.prompts):
            world.problems.append(f"two prompts are open for {sale}")
        self._number += 1
        phone = str(body["PhoneNumber"])
        at = world.true_time().astimezone(EAT)
        prompt = Prompt(
            token=token, sale=sale, phone=phone, shillings=int(body["Amount"]),
            reference=str(body["AccountReference"]),
            request=f"ws_CO_{at:%d%m%Y%H%M%S}{self._number:03d}{phone[-9:]}",
            merchant=f"29115-{self._number}-1", opened_s=now, ends_s=now + chance.uniform(*PROMPT_S),
        )  # fmt: skip
        self.prompts.append(prompt)
        world.trace(f"prompt {self._number} of {sale}")
        self._later(self._customer(prompt, self._number))
        return prompt

    # --- customers ----------------------------------------------------------------------------------

    async def _customer(self, prompt: Prompt, number: int) -> None:
        world, chance = self.world, self.world.chance
        does = chance.choices(
            ("pays", "cancels", "ignores", "pin", "poor", "cut off"), (60, 10, 10, 5, 5, 10)
        )[0]
        life = prompt.ends_s - world.loop.time()
        wait = chance.uniform(3, 45) if chance.random() < 0.8 else chance.uniform(3, life)
        await asyncio.sleep(life if does == "ignores" else min(wait, life))
        prompt.ends_s = world.loop.time()
        prompt.code = {
            "pays": "0",
            "cancels": "1032",
            "ignores": "1037",
            "pin": "2001",
            "poor": "1",
            "cut off": "1036",
        }[does]
        if does == "pays":
            shillings = prompt.shillings - (10 if world.happens(self.trouble / 10) else 0)
            prompt.moved = self._move(shillings, prompt.phone, prompt.reference, prompt.token)
        world.trace(f"customer {number} {does}")
        if world.happens(self.trouble / 2):
            prompt.lies = chance.choice(("1", "1037", "4999", "7777", "500", "400"))
        await self._callbacks(prompt)

    def _move(self, shillings: int, phone: str, reference: str, token: str | None) -> Moved:
        moved = Moved(
            f"UKN{len(self.journal) + 1:07d}",
            shillings,
            phone,
            reference,
            self.world.loop.time(),
            token,
        )
        self.journal.append(moved)
        if self.c2b:
            self._later(self._confirm(moved))
        return moved

    def pay_directly(self, shillings: int, phone: str, reference: str) -> Moved:
        """A customer pays without being asked, by typing the shop's number; at a till no reference."""
        reference = "" if self.till else reference
        self.world.trace(f"customer pays {shillings} directly")
        return self._move(shillings, phone, reference, None)

    async def _confirm(self, moved: Moved) -> None:
        world, chance = self.world, self.world.chance
        await asyncio.sleep(chance.choice((0.1, 2.0, 20.0, 90.0)))
        if world.happens(self.trouble):
            world.trace(f"confirmation of {moved.receipt} is lost")
            return
        at = world.true_time().astimezone(EAT)
        notice = {
            "TransactionType": "Buy Goods" if self.till else "Pay Bill", "TransID": moved.receipt,
            "TransTime": f"{at:%Y%m%d%H%M%S}", "TransAmount": f"{moved.shillings}.00",
            "BusinessShortCode": SHORTCODE, "BillRefNumber": self._reference(moved), "InvoiceNumber": "",
            "OrgAccountBalance": "1.00", "ThirdPartyTransID": "", "MSISDN": payer_of(moved.phone, self.payer),
            "FirstName": "JANE", "MiddleName": "", "LastName": "",
        }  # fmt: skip
        for _ in range(1 + world.happens(self.trouble / 2)):
            self.relay.post("c", C2B_TOKEN, json.dumps(notice).encode())

    def _reference(self, moved: Moved) -> str:
        """What its announcements name: at a till nothing, or what M-Pesa fills in."""
        return (
            self.world.chance.choice(("", "", "Merchant Payment")) if self.till else moved.reference
        )

    async def _callbacks(self, prompt: Prompt) -> None:
        """What Daraja says of it by itself: mostly the truth, once; in bad weather anything."""
        world, chance = self.world, self.world.chance
        await asyncio.sleep(chance.uniform(0.05, 2))
        assert prompt.code is not None
        if self.mute:
            return
        code = prompt.code
        raw = json.dumps(callback(prompt, code, chance)).encode()
        fault = None
        if world.happens(self.trouble):
            fault = chance.choice(
                ("lost", "late", "twice", "half", "forged", "masked", "contradicts", "strings")
            )
            world.trace(f"callback of {prompt.request} {fault}")
        if fault == "lost":
            return
        if fault == "late":
            await asyncio.sleep(chance.uniform(30, 900))
        if fault == "half":
            raw = raw[: len(raw) // 2]
        if fault == "forged":
            # An attacker knows how callbacks look, not the address: another token, and a paid one.
            self.relay.post(
                "s",
                f"forged-{self._number}",
                json.dumps(forged(prompt, self._number, chance)).encode(),
            )
        if fault == "masked":
            raw = raw.replace(prompt.phone.encode(), b'"0722000***"')
        if fault == "strings":
            raw = json.dumps(callback(prompt, code, chance), default=str).encode()
        other = fault == "contradicts" and code == "0"
        before = chance.random() < 0.5
        if other and before:
            self.relay.post(
                "s", prompt.token, json.dumps(callback(prompt, "1032", chance)).encode()
            )
        for _ in range(chance.randint(2, 4) if fault == "twice" else 1):
            self.relay.post("s", prompt.token, raw)
        if other and not before:
            self.relay.post(
                "s", prompt.token, json.dumps(callback(prompt, "1032", chance)).encode()
            )

    # --- questions ----------------------------------------------------------------------------------

    def _query(self, body: dict[str, Any]) -> Answer | None:
        world, chance = self.world, self.world.chance
        now = world.loop.time()
        self._asked_s = [at for at in self._asked_s if now - at < 60] + [now]
        if len(self._asked_s) > 6:
            return 429, SPIKE
        if world.happens(self.trouble):
            others = [p for p in self.prompts if p.request != body["CheckoutRequestID"]]
            other = chance.choice(others) if others else None
            fault = chance.choice(("503", "none", "429", "other", "early", "blank"))
            if fault == "none":
                return None
            if fault == "503":
                return 503, b"<html>"
            if fault == "429":
                return 429, SPIKE
            if fault == "early":
                return error(400, "400.002.02", "Bad Request - Invalid CheckoutRequestID")
            if fault == "blank":
                return 200, b'{"ResponseCode":"0"}'
            if other is not None:
                world.trace("query answers about another request")
                return told(other, "0")
        prompt = next((p for p in self.prompts if p.request == body["CheckoutRequestID"]), None)
        if prompt is None:
            return error(400, "400.002.02", "Bad Request - Invalid CheckoutRequestID")
        if prompt.code is None:
            return told(prompt, "4999")
        if prompt.lies == "500":
            return error(500, "500.001.1001", "The transaction is being processed")
        if prompt.lies == "400":
            return error(400, "400.002.02", "Bad Request - Invalid CheckoutRequestID")
        return told(prompt, prompt.lies or prompt.code)

    def _pull(self, body: dict[str, Any]) -> Answer | None:
        world = self.world
        if world.loop.time() < self.listed_from_s:
            return 200, NO_LIST
        if world.happens(self.trouble):
            return world.chance.choice(
                (
                    None, (503, b"<html>"), (200, b'{"ResponseCode":"1000","Response":[[{'), (200, NO_LIST),
                    (200, b'{"ResponseCode":"1001","ResponseMessage":"No transactions","Response":[[]]}'),
                    (200, b'{"ResponseCode":"1000","ResponseMessage":"Success","Response":[]}'),
                )
            )  # fmt: skip
        rows = []
        for moved in self.journal:
            at = (world.true_time() + timedelta(seconds=moved.at_s - world.loop.time())).astimezone(
                EAT
            )
            if not body["StartDate"] <= f"{at:%Y-%m-%d %H:%M:%S}" <= body["EndDate"]:
                continue
            rows.append(
                {
                    "transactionId": moved.receipt, "trxDate": f"{at:%Y-%m-%dT%H:%M:%S}+03:00",
                    "msisdn": int(moved.phone), "sender": "MPESA",
                    "transactiontype": "c2b-buy-goods-debit" if self.till else "c2b-pay-bill-debit",
                    "billreference": "" if self.till else moved.reference, "amount": f"{moved.shillings}.00",
                    "organizationname": "TEST TRADERS LTD",
                }
            )  # fmt: skip
        if rows and world.happens(0.3):
            # The sweep to the bank, of what has come.
            rows.append(rows[-1] | {"transactionId": f"UKS{len(rows):07d}", "msisdn": 254700000000,
                                    "transactiontype": "merchant-to-organization-settlement"})  # fmt: skip
        page = rows[int(body.get("OffSetValue") or 0) :][:1000]
        said = {
            "ResponseRefID": "1-1-1", "ResponseCode": "1000" if page else "1001",
            "ResponseMessage": "Success" if page else "No transactions", "Response": [page],
        }  # fmt: skip
        return 200, json.dumps(said).encode()

    # --- money back ---------------------------------------------------------------------------------

    def _reverse(self, body: dict[str, Any]) -> Answer | None:
        world, chance = self.world, self.world.chance
        if world.happens(self.trouble) and chance.random() < 0.5:
            return chance.choice((None, (429, SPIKE)))
        self._number += 1
        conversation = f"AG_{self._number:08d}"
        moved = next((m for m in self.journal if m.receipt == body["TransactionID"]), None)
        if moved is None:
            code = "R000002"
        elif moved.reversed:
            code = "R000001"
        else:
            code, moved.reversed = "0", True
            if int(float(body["Amount"])) != moved.shillings:
                world.problems.append(f"{moved.receipt} was reversed with another amount")
        world.trace(f"reversal of {body['TransactionID']}: {code}")
        self._later(self._result(body["ResultURL"], conversation, code, body["TransactionID"]))
        if world.happens(self.trouble / 2):
            return None
        said = {
            "OriginatorConversationID": f"O{conversation}",
            "ConversationID": conversation,
            "ResponseCode": "0",
            "ResponseDescription": "Accept",
        }
        return 200, json.dumps(said).encode()

    def _status(self, body: dict[str, Any]) -> Answer | None:
        self._number += 1
        conversation = f"AG_{self._number:08d}"
        said = {
            "OriginatorConversationID": f"O{conversation}",
            "ConversationID": conversation,
            "ResponseCode": "0",
            "ResponseDescription": "Accept",
        }
        return 200, json.dumps(said).encode()

    async def _result(self, url: str, conversation: str, code: str, receipt: str) -> None:
        world, chance = self.world, self.world.chance
        await asyncio.sleep(chance.uniform(0.1, 20))
        if world.happens(self.trouble / 2):
            return
        result: dict[str, Any] = {
            "ResultType": 0, "ResultCode": int(code) if code.isdigit() else code, "ResultDesc": "?",
            "OriginatorConversationID": f"O{conversation}", "ConversationID": conversation,
            "TransactionID": f"REV{self._number:07d}",
        }  # fmt: skip
        if code == "0":
            result["ResultParameters"] = {
                "ResultParameter": [{"Key": "OriginalTransactionID", "Value": receipt}]
            }
        raw = json.dumps({"Result": result}).encode()
        for _ in range(1 + world.happens(self.trouble / 2)):
            self.relay.post("r", url.rsplit("/", 1)[1], raw)

    def _later(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.world.problems.append(f"the simulated Daraja broke: {task.exception()!r}")

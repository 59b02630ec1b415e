"""Requests that are answered later at a ResultURL: transaction status, reversal, B2C (daraja.md 6)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from aiohttp import web

from hw_fakes.daraja import checks, shapes
from hw_fakes.daraja.bank import Payment
from hw_fakes.daraja.checks import text
from hw_fakes.daraja.oauth import OAuth
from hw_fakes.daraja.sender import Sender
from hw_fakes.daraja.world import World

B2C_COMMANDS = ("BusinessPayment", "SalaryPayment", "PromotionPayment")
# What is worked out when the time has come: code, receipt of the answer, parameters.
Outcome = tuple[str, str | None, list[dict[str, Any]]]


class Results:
    def __init__(self, world: World, oauth: OAuth, sender: Sender) -> None:
        self._world = world
        self._oauth = oauth
        self._sender = sender

    async def status(self, request: web.Request) -> web.StreamResponse:
        """By receipt or by the OriginatorConversationID of a reversal or B2C; never by CheckoutRequestID."""
        body = await self._body(request, "status", "Initiator", "TransactionStatusQuery")
        if not isinstance(body, dict):
            return body
        if text(body, "IdentifierType") != "4":
            return self._world.invalid("IdentifierType")
        if not text(body, "TransactionID") and not text(body, "OriginalConversationID"):
            return self._world.invalid("TransactionID")
        return self._accept(request, "status", body, self._find)

    async def reversal(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request, "reversal", "Initiator", "TransactionReversal")
        if not isinstance(body, dict):
            return body
        if text(body, "RecieverIdentifierType") != "11":
            return self._world.invalid("RecieverIdentifierType")
        if checks.amount(text(body, "Amount")) is None:
            return self._world.invalid("Amount")
        if not text(body, "TransactionID"):
            return self._world.invalid("TransactionID")
        if self._world.bank.merchant(text(body, "ReceiverParty")) is None:
            return self._world.invalid("ReceiverParty")
        return self._accept(request, "reversal", body, self._reverse)

    async def b2c(self, request: web.Request) -> web.StreamResponse:
        """Accept a payout. Version 3 has a key of the caller's, OriginatorConversationID; version 1 has none."""
        world = self._world
        body = await self._body(request, "b2c", "InitiatorName", *B2C_COMMANDS)
        if not isinstance(body, dict):
            return body
        key = text(body, "OriginatorConversationID")
        if not key and "/v1/" not in request.path:
            return world.invalid("OriginatorConversationID")
        if key and key in world.conversations:
            return world.error(500, "500.002.1001", "Duplicate OriginatorConversationID.")
        shillings = checks.amount(text(body, "Amount"))
        if shillings is None or shillings < 10:
            return world.invalid("Amount")
        if not checks.PHONE.fullmatch(text(body, "PartyB")):
            return world.invalid("PartyB")
        if world.bank.merchant(text(body, "PartyA")) is None:
            return world.invalid("PartyA")
        return self._accept(request, "b2c", body, self._pay_out)

    async def balance(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request, "balance", "Initiator", "AccountBalance")
        if not isinstance(body, dict):
            return body
        if text(body, "IdentifierType") not in ("2", "4"):
            return self._world.invalid("IdentifierType")
        if self._world.bank.merchant(text(body, "PartyA")) is None:
            return self._world.invalid("PartyA")
        return self._accept(request, "balance", body, self._balances)

    async def _body(
        self, request: web.Request, family: str, initiator: str, *commands: str
    ) -> dict[str, Any] | web.StreamResponse:
        world = self._world
        body = await self._oauth.body(request, family)
        if not isinstance(body, dict):
            return body
        for name in (initiator, "SecurityCredential", "Remarks"):
            if not text(body, name):
                return world.invalid(name)
        if text(body, "CommandID") not in commands:
            return world.invalid("CommandID")
        for name in ("ResultURL", "QueueTimeOutURL"):
            if not checks.https(text(body, name)):
                return world.invalid(name)
        return body

    def _accept(
        self, request: web.Request, kind: str, body: dict[str, Any],
        work: Callable[[dict[str, Any], str], Outcome],
    ) -> web.StreamResponse:  # fmt: skip
        world = self._world
        originator = text(body, "OriginatorConversationID") or world.ids.merchant_request()
        conversation = world.ids.conversation(world.clock.now())
        if world.knobs.same_conversation:
            # Ids are unique at Safaricom; here the first pair comes again and again.
            world.first_ids = world.first_ids or (originator, conversation)
            originator, conversation = world.first_ids
        world.conversations.setdefault(originator, "")
        world.note(
            kind, outcome="accepted", originatorConversationId=originator,
            conversationId=conversation, transactionId=text(body, "TransactionID"),
        )  # fmt: skip
        world.begin(self._later(kind, body, originator, conversation, work))
        if world.knobs.faults.get(kind) == "lost":
            return world.fault("reset", request)
        return web.json_response(
            {
                "OriginatorConversationID": originator,
                "ConversationID": conversation,
                "ResponseCode": "0",
                "ResponseDescription": "Accept the service request successfully.",
            }
        )

    async def _later(
        self, kind: str, body: dict[str, Any], originator: str, conversation: str,
        work: Callable[[dict[str, Any], str], Outcome],
    ) -> None:  # fmt: skip
        world, knobs = self._world, self._world.knobs
        await world.clock.sleep(knobs.result_after_s)
        timed_out = knobs.queue_timeouts > 0
        if timed_out:
            knobs.queue_timeouts -= 1
            outcome: Outcome = ("1", None, [])
        elif knobs.initiator_code != "0":
            outcome = (knobs.initiator_code, None, [])
        else:
            outcome = work(body, originator)
        code, receipt, parameters = outcome
        result: dict[str, Any] = {
            "ResultType": 0,
            "ResultCode": shapes.typed(code),
            "ResultDesc": "The request timed out in the queue."
            if timed_out
            else shapes.DESCRIPTIONS.get(code, "?"),
            "OriginatorConversationID": originator,
            "ConversationID": conversation,
            "TransactionID": receipt or world.ids.receipt(world.clock.now()),
        }
        if parameters:
            result["ResultParameters"] = {"ResultParameter": parameters}
        reference = {"Key": "QueueTimeoutURL", "Value": text(body, "QueueTimeOutURL")}
        if kind == "status":
            reference = {"Key": "Occasion"}
            if occasion := text(body, "Occasion"):
                reference["Value"] = occasion
        # An object here; other calls of the real one have an array.
        result["ReferenceData"] = {"ReferenceItem": reference}
        world.note(
            kind, outcome="queue time-out" if timed_out else code, conversationId=conversation
        )
        await self._sender.deliver(
            "timeout" if timed_out else "result",
            text(body, "QueueTimeOutURL" if timed_out else "ResultURL"),
            json.dumps({"Result": result}).encode(),
            conversationId=conversation,
            code=code,
        )

    def _find(self, body: dict[str, Any], _: str) -> Outcome:
        world = self._world
        receipt = text(body, "TransactionID") or world.conversations.get(
            text(body, "OriginalConversationID"), ""
        )
        payment = world.bank.payment(receipt)
        asked = world.bank.merchant(text(body, "PartyA"))
        if payment is None or asked is None or asked.shortcode != payment.shortcode:
            return "R000002", None, []
        at = f"{payment.at:%Y%m%d%H%M%S}"
        back = payment.kind in ("REVERSAL", "B2C")
        state = world.knobs.reversed_status if payment.reversed_by else "Completed"
        parameters: list[dict[str, Any]] = [
            # The same key twice, and one without a value: as Daraja does.
            {"Key": "DebitPartyName", "Value": f"{asked.shortcode} - {asked.name}"},
            {"Key": "DebitPartyName", "Value": f"{payment.phone} - {payment.names[0]}"},
            {"Key": "OriginatorConversationID", "Value": world.ids.request()},
            {"Key": "InitiatedTime", "Value": at},
            {"Key": "DebitAccountType", "Value": "Utility Account" if back else "MMF Account"},
            {"Key": "DebitPartyCharges", "Value": "Pay merchant Charge|KES|0.00"},
            {"Key": "TransactionReason"},
            {"Key": "ReasonType", "Value": _reason(payment)},
            {"Key": "TransactionStatus", "Value": state},
            {"Key": "FinalisedTime", "Value": at},
            {"Key": "Amount", "Value": str(payment.amount)},
            {"Key": "ConversationID", "Value": world.ids.conversation(payment.at)},
            {"Key": "ReceiptNo", "Value": payment.receipt},
        ]
        return "0", None, parameters

    def _reverse(self, body: dict[str, Any], originator: str) -> Outcome:
        world = self._world
        payment = world.bank.payment(text(body, "TransactionID"))
        merchant = world.bank.merchant(text(body, "ReceiverParty"))
        assert merchant is not None
        if payment is None or payment.kind not in ("STK", "C2B"):
            return "R000002", None, []
        if payment.reversed_by is not None:
            return "R000001", None, []
        if payment.shortcode != merchant.shortcode:
            return "2028", None, []
        if int(text(body, "Amount")) != payment.amount:
            return "2006", None, []
        if merchant.balance < payment.amount:
            return "1", None, []
        back = self._book("REVERSAL", payment.phone, payment.number, payment.amount)
        back.of, payment.reversed_by = payment.receipt, back.receipt
        world.conversations[originator] = back.receipt
        world.note("payment", **back.told())
        balance = f"Utility Account|KES|{merchant.balance}.00|{merchant.balance}.00|0.00|0.00"
        return "0", back.receipt, [
            {"Key": "DebitAccountBalance", "Value": balance},
            {"Key": "Amount", "Value": float(payment.amount)},
            {"Key": "TransCompletedTime", "Value": int(f"{back.at:%Y%m%d%H%M%S}")},
            {"Key": "OriginalTransactionID", "Value": payment.receipt},
            {"Key": "Charge", "Value": 0.0},
            {"Key": "CreditPartyPublicName", "Value": f"{payment.phone} - {payment.names[0]}"},
            {"Key": "DebitPartyPublicName", "Value": f"{merchant.shortcode} - {merchant.name}"},
        ]  # fmt: skip

    def _pay_out(self, body: dict[str, Any], originator: str) -> Outcome:
        world = self._world
        merchant = world.bank.merchant(text(body, "PartyA"))
        assert merchant is not None
        shillings = int(text(body, "Amount"))
        if merchant.balance < shillings:
            return "1", None, []
        out = self._book("B2C", text(body, "PartyB"), text(body, "PartyA"), shillings)
        world.conversations[originator] = out.receipt
        world.note("payment", **out.told())
        return "0", out.receipt, [
            {"Key": "TransactionAmount", "Value": shillings},
            {"Key": "TransactionReceipt", "Value": out.receipt},
            {"Key": "ReceiverPartyPublicName", "Value": f"{out.phone} - {out.names[0]}"},
            {"Key": "TransactionCompletedDateTime", "Value": f"{out.at:%d.%m.%Y %H:%M:%S}"},
            {"Key": "B2CUtilityAccountAvailableFunds", "Value": float(merchant.balance)},
            {"Key": "B2CWorkingAccountAvailableFunds", "Value": 0.0},
            {"Key": "B2CRecipientIsRegisteredCustomer", "Value": "Y"},
            {"Key": "B2CChargesPaidAccountAvailableFunds", "Value": 0.0},
        ]  # fmt: skip

    def _balances(self, body: dict[str, Any], _: str) -> Outcome:
        world = self._world
        merchant = world.bank.merchant(text(body, "PartyA"))
        assert merchant is not None
        accounts = (("Working Account", 0), ("Utility Account", merchant.balance))
        told = "&".join(f"{name}|KES|{own}.00|{own}.00|0.00|0.00" for name, own in accounts)
        return "0", None, [
            {"Key": "AccountBalance", "Value": told},
            {"Key": "BOCompletedTime", "Value": int(f"{world.clock.now():%Y%m%d%H%M%S}")},
        ]  # fmt: skip

    def _book(self, kind: str, phone: str, number: str, amount: int) -> Payment:
        world = self._world
        now: datetime = world.clock.now()
        merchant = world.bank.merchant(number)
        assert merchant is not None
        payment = Payment(
            receipt=world.ids.receipt(now), kind=kind, phone=phone, shortcode=merchant.shortcode,
            number=number, amount=amount, at=now,
        )  # fmt: skip
        world.bank.book(payment)
        return payment


def _reason(payment: Payment) -> str:
    return {
        "REVERSAL": "Transaction Reversal via API",
        "B2C": "Business Payment to Customer via API",
    }.get(payment.kind, "Pay Bill Online" if payment.reference else "Merchant Payment Online")

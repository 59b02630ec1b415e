"""C2B: addresses registered once, a customer who pays the number by hand, validation, confirmation (daraja.md 6).

Version 1 and version 2 live side by side: an app's product allows one of them (knob noProduct).
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from hw_fakes.daraja import checks, shapes
from hw_fakes.daraja.bank import Merchant, Payment
from hw_fakes.daraja.checks import text
from hw_fakes.daraja.oauth import OAuth
from hw_fakes.daraja.sender import Sender
from hw_fakes.daraja.world import World


class C2b:
    def __init__(self, world: World, oauth: OAuth, sender: Sender) -> None:
        self._world = world
        self._oauth = oauth
        self._sender = sender

    async def register(self, request: web.Request) -> web.StreamResponse:
        world, version = self._world, _version(request)
        body = await self._oauth.body(request, "c2b", f"c2b/{version}")
        if not isinstance(body, dict):
            return body
        merchant = world.bank.merchant(text(body, "ShortCode"))
        if merchant is None:
            return world.invalid("ShortCode")
        if text(body, "ResponseType") not in ("Completed", "Cancelled"):
            return world.invalid("ResponseType")
        for name in ("ConfirmationURL", "ValidationURL"):
            url = text(body, name)
            if not checks.https(url) or checks.BANNED.search(url):
                return world.invalid(name)
        if merchant.registered is not None and world.knobs.one_shot:
            world.note(
                "c2b", outcome="already registered", shortcode=text(body, "ShortCode"),
                version=version,
            )  # fmt: skip
            return self._again()
        merchant.registered = {
            name: text(body, name) for name in ("ResponseType", "ConfirmationURL", "ValidationURL")
        }
        merchant.c2b_version = version
        world.note("c2b", outcome="registered", shortcode=text(body, "ShortCode"), version=version)
        if self._form(version) == "no_code":
            told = _without_code("success")
        else:
            told = self._with_code(version, "Success", world.ids.merchant_request())
        return web.json_response(told)

    def _form(self, version: str) -> str:
        form = self._world.knobs.c2b_answer
        if form == "auto":
            return "no_code" if version == "v1" else "code"
        return form

    def _with_code(self, version: str, words: str, originator: str) -> dict[str, Any]:
        codes = {"code": "0", "number": 0, "zeros": "00000000"}
        return {
            "OriginatorCoversationID": originator,
            "ResponseCode": codes[self._form(version)],
            "ResponseDescription": words,
        }

    def _again(self) -> web.Response:
        """Refuse a second registration in one of the ways in which Daraja has refused it."""
        world = self._world
        if world.knobs.c2b_again == "200":
            words = "Validation and Confirmation URLs are already registered"
            return web.json_response(_without_code(words))
        if world.knobs.c2b_again == "soap":
            return web.json_response(shapes.SOAP_409, status=500)
        return world.error(500, "500.003.1001", "Urls are already registered.")

    async def simulate(self, request: web.Request) -> web.StreamResponse:
        """The sandbox's own: a customer pays, without a phone."""
        world, version = self._world, _version(request)
        body = await self._oauth.body(request, "c2b", f"c2b/{version}")
        if not isinstance(body, dict):
            return body
        phone, number = text(body, "Msisdn"), text(body, "ShortCode")
        shillings = checks.amount(text(body, "Amount"))
        if shillings is None:
            return world.invalid("Amount")
        if not checks.PHONE.fullmatch(phone):
            return world.invalid("Msisdn")
        if world.bank.merchant(number) is None:
            return world.invalid("ShortCode")
        world.begin(self._pay_later(phone, number, shillings, text(body, "BillRefNumber")))
        accepted = "Accept the service request successfully."
        if self._form(version) != "no_code":
            told = self._with_code(version, accepted, world.ids.merchant_request())
            return web.json_response(told)
        conversation = world.ids.conversation(world.clock.now())
        told = _without_code(accepted, conversation, world.ids.request())
        return web.json_response(told)

    async def _pay_later(self, phone: str, number: str, amount: int, reference: str) -> None:
        await self.pay(phone, number, amount, reference)

    async def pay(self, phone: str, number: str, amount: int, reference: str = "") -> Payment | str:
        """A customer pays by hand. The payment once it is booked, its confirmation under way; or why not."""
        world = self._world
        merchant = world.bank.merchant(number)
        if merchant is None:
            return "SFC_IC0003"
        if world.bank.wallet(phone).balance < amount:
            return "1"
        now = world.clock.now()
        payment = Payment(
            receipt=world.ids.receipt(now), kind="C2B", phone=phone, shortcode=merchant.shortcode,
            number=number, amount=amount, at=now, reference=reference,
            names=world.bank.wallet(phone).names,
        )  # fmt: skip
        refused = await self._validated(merchant, payment)
        if refused is not None:
            world.note("c2b", outcome="refused by the merchant", code=refused, amount=amount)
            return refused
        world.bank.book(payment)
        world.note("payment", **payment.told())
        world.begin(self.confirm(payment))
        return payment

    async def _validated(self, merchant: Merchant, payment: Payment) -> str | None:
        """None to go on, or the code of the refusal. Without an answer ResponseType decides."""
        knobs = self._world.knobs
        if not knobs.validation or merchant.registered is None:
            return None
        body = json.dumps(self._notice(payment, "")).encode()
        status, answer = await self._sender.post(
            "validation", merchant.registered["ValidationURL"], body, knobs.validation_timeout_s
        )
        try:
            code = str(json.loads(answer)["ResultCode"]) if status == 200 else None
        except (ValueError, KeyError, TypeError):
            code = None
        if code is None:
            completed = merchant.registered["ResponseType"] == "Completed"
            return None if completed else "C2B00016"
        return None if code == "0" else code

    async def confirm(self, payment: Payment) -> None:
        merchant = self._world.bank.merchant(payment.shortcode)
        assert merchant is not None
        if merchant.registered is None:
            return
        body = json.dumps(self._notice(payment, f"{merchant.balance}.00")).encode()
        await self._sender.deliver(
            "c2b", merchant.registered["ConfirmationURL"], body, receipt=payment.receipt
        )

    async def tell_reversal(self, payment: Payment, back: Payment) -> None:
        """Post to the ConfirmationURL that a payment was reversed, if the knob reversalNotice wants it."""
        merchant = self._world.bank.merchant(payment.shortcode)
        assert merchant is not None
        how = self._world.knobs.reversal_notice
        if how == "none" or merchant.registered is None:
            return
        notice = self._notice(payment, f"{merchant.balance}.00") | {
            "TransactionType": "C2B Reversal",
            "TransID": back.receipt,
            "TransTime": f"{back.at:%Y%m%d%H%M%S}",
            "TransAmount": f"{'-' if how == 'negative' else ''}{back.amount}.00",
        }
        await self._sender.deliver(
            "c2b", merchant.registered["ConfirmationURL"], json.dumps(notice).encode(),
            receipt=back.receipt,
        )  # fmt: skip

    def _notice(self, payment: Payment, balance: str) -> dict[str, str | None]:
        merchant, forms = self._world.bank.merchant(payment.shortcode), self._world.knobs.msisdn
        form = forms.get(payment.shortcode, forms.get("*", "auto"))
        if form == "auto":
            first = merchant is not None and merchant.c2b_version == "v1"
            form = "hashed" if first else "masked"
        return shapes.c2b_notice(
            msisdn=form,
            receipt=payment.receipt, at=payment.at, amount=payment.amount,
            shortcode=payment.number, till=payment.number != payment.shortcode,
            reference=payment.reference, balance=balance, phone=payment.phone, names=payment.names,
        )  # fmt: skip


def _version(request: web.Request) -> str:
    """Return the part of the path that names the version: v1 or v2."""
    return request.path.split("/")[3]


def _without_code(words: str, conversation: str = "", originator: str = "") -> dict[str, Any]:
    """Return an answer of version 1: no ResponseCode, and the misspelt key."""
    return {
        "ConversationID": conversation,
        "OriginatorCoversationID": originator,
        "ResponseDescription": words,
    }

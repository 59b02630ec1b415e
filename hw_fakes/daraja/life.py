"""What becomes of an accepted push: the prompt, the customer, the money, the messages."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

from hw_fakes.daraja import shapes
from hw_fakes.daraja.bank import Payment
from hw_fakes.daraja.c2b import C2b
from hw_fakes.daraja.plans import Callback
from hw_fakes.daraja.sender import Sender
from hw_fakes.daraja.world import Push, World

# How soon M-Pesa refuses by itself, without a prompt.
REFUSES_S = 3.0
# What M-Pesa takes after the PIN.
BOOKS_S = 2.0


class Life:
    def __init__(self, world: World, sender: Sender, c2b: C2b) -> None:
        self._world = world
        self._sender = sender
        self._c2b = c2b

    def start(self, push: Push) -> None:
        self._world.begin(self._live(push))
        for callback in push.plan.callbacks:
            if callback.at_s is not None:
                self._world.begin(self._call_at(push, callback))

    async def _live(self, push: Push) -> None:
        world, plan = self._world, push.plan
        refused = self._refused_by_rule(push)
        if refused is not None:
            await world.clock.sleep(REFUSES_S)
            code = refused
        elif plan.by_person:
            code = await self._ask_person(push)
        else:
            code = await self._act_out(push)
        if code == "0":
            code = self._pay(push)
        push.code = code
        world.note("outcome", checkoutRequestId=push.checkout_id, code=code, receipt=push.receipt)
        callbacks = plan.callbacks
        if callbacks and code != plan.code:
            # The customer or the rules decided otherwise than the row.
            callbacks = (replace(callbacks[0], code=None),)
        for callback in callbacks:
            if callback.at_s is None:
                world.begin(self._call_after(push, callback))
        if code == "0" and (plan.c2b == "yes" or (plan.c2b == "auto" and world.knobs.twin)):
            world.begin(self._twin(push))
        if plan.then_pays_till:
            await world.clock.sleep(BOOKS_S)
            await self._c2b.pay(push.phone, push.party_b, push.amount, push.reference)

    def _refused_by_rule(self, push: Push) -> str | None:
        """A product that does not fit, or the same amount from the same customer too soon."""
        world = self._world
        merchant = world.bank.owner(push.shortcode)
        assert merchant is not None
        fits = push.party_b in merchant.tills if push.till else push.party_b == push.shortcode
        if push.till and not merchant.tills:
            fits = False
        if not fits:
            return "2028" if world.bank.merchant(push.party_b) else "SFC_IC0003"
        rule = world.knobs.rule17_s
        for other in world.pushes:
            if (
                other is not push
                and other.code == "0"
                and (other.phone, other.amount, other.party_b)
                == (push.phone, push.amount, push.party_b)
                and push.began - other.began < rule
            ):
                return "17"
        return None

    async def _act_out(self, push: Push) -> str:
        world, plan = self._world, push.plan
        done = world.rng.uniform(*world.knobs.answer_s) if plan.done_s is None else plan.done_s
        prompt = min(world.knobs.prompt_after_s, done / 2)
        await world.clock.sleep(prompt)
        if plan.prompt:
            self._prompt(push)
        await world.clock.sleep(done - prompt)
        return plan.code

    async def _ask_person(self, push: Push) -> str:
        """The person at the page: a PIN, cancel, or nothing for as long as a prompt lives."""
        world = self._world
        await world.clock.sleep(world.knobs.prompt_after_s)
        push.answered = asyncio.get_running_loop().create_future()
        self._prompt(push)
        life = world.begin(self._forget(push))
        said = await push.answered
        life.cancel()
        world.note("prompt", checkoutRequestId=push.checkout_id, did=_did(said))
        if said == "":
            return world.knobs.ignored_code
        if said == "cancel":
            return "1032"
        await world.clock.sleep(BOOKS_S)
        return world.bank.wallet(push.phone).try_pin(said)

    async def _forget(self, push: Push) -> None:
        await self._world.clock.sleep(self._world.knobs.prompt_life_s)
        if push.answered is not None and not push.answered.done():
            push.answered.set_result("")

    def _prompt(self, push: Push) -> None:
        push.prompted = True
        self._world.note(
            "prompt", checkoutRequestId=push.checkout_id, phone=push.phone, amount=push.amount,
            did="shown",
        )  # fmt: skip

    def _pay(self, push: Push) -> str:
        """Moves the money; 1 if it is not there."""
        world = self._world
        amount = push.amount
        if push.plan.other_amount:
            amount = amount // 10 if amount >= 10 else amount + 1
        if world.bank.wallet(push.phone).balance < amount:
            return "1"
        now = world.clock.now()
        payment = Payment(
            receipt=world.ids.receipt(now), kind="STK", phone=push.phone,
            shortcode=push.shortcode, number=push.party_b, amount=amount, at=now,
            reference="" if push.till else push.reference, checkout_id=push.checkout_id,
        )  # fmt: skip
        world.bank.book(payment)
        push.receipt = payment.receipt
        world.note("payment", **payment.told())
        return "0"

    async def _call_after(self, push: Push, callback: Callback) -> None:
        await self._world.clock.sleep(callback.after_s)
        await self._call(push, callback)

    async def _call_at(self, push: Push, callback: Callback) -> None:
        assert callback.at_s is not None
        await self._world.clock.sleep(callback.at_s)
        if callback.where == "own":
            await self._world.wait_for(lambda: push.code is not None, 3600)
        await self._call(push, callback)

    async def _call(self, push: Push, callback: Callback) -> None:
        world = self._world
        payment = world.bank.payment(push.receipt) if push.receipt else None
        now = world.clock.now()
        code = callback.code if callback.code is not None else push.code
        assert code is not None
        url, checkout_id = push.callback_url, push.checkout_id
        if callback.where == "token":
            url = f"{url.rpartition('/')[0]}/{secrets.token_urlsafe(24)}"
        if callback.where == "id":
            checkout_id = world.ids.checkout(now, push.phone)
        body = shapes.stk_callback(
            merchant_id=push.merchant_id
            if callback.where != "id"
            else world.ids.merchant_request(),
            checkout_id=checkout_id,
            code=code,
            amount=payment.amount if payment else push.amount,
            receipt=payment.receipt if payment else world.ids.receipt(now),
            phone=push.phone,
            at=payment.at if payment else now,
            variant=world.knobs.callback_variant
            if callback.variant == "plain"
            else callback.variant,
        )
        await self._sender.deliver(
            "stk", url, body, callback.copies, checkoutRequestId=push.checkout_id, code=code
        )
        push.called.set()

    async def _twin(self, push: Push) -> None:
        """The same payment again, as a C2B confirmation, if addresses are registered."""
        world, plan = self._world, push.plan
        after = world.knobs.twin_after_s if plan.c2b_after_s is None else plan.c2b_after_s
        await world.clock.sleep(after)
        assert push.receipt is not None
        payment = world.bank.payment(push.receipt)
        assert payment is not None
        await self._c2b.confirm(payment)


def _did(said: str) -> str:
    if said == "":
        return "ignored"
    return "cancelled" if said == "cancel" else "entered a PIN"

"""STK push and query: what is answered at once. What happens on the phone is in life.py."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from hw_fakes.daraja import checks, shapes
from hw_fakes.daraja.checks import text
from hw_fakes.daraja.life import Life
from hw_fakes.daraja.oauth import OAuth
from hw_fakes.daraja.plans import Attempt, Choice, Plan
from hw_fakes.daraja.world import Push, World

TOKEN_ROWS = ("token_expired", "token_replaced", "oauth_refused")
# What a plan may answer a push with, besides ok; those of knobs.FAULTS too.
ANSWERS = (
    "lock", "busy", "response_code_1", "bad_callback_url", *TOKEN_ROWS, "hold", "swallow", "late",
    "malformed_200",
)  # fmt: skip


class Stk:
    def __init__(self, world: World, oauth: OAuth, life: Life) -> None:
        self._world = world
        self._oauth = oauth
        self._life = life

    async def push(self, request: web.Request) -> web.StreamResponse:
        world = self._world
        if fault := world.knobs.faults.get("push"):
            world.note("push", outcome=f"fault {fault}")
            return world.fault(fault, request)
        if refusal := self._oauth.check(request, "push"):
            return refusal
        body = await checks.read_body(request)
        if body is None:
            return self._refused(world.invalid("BusinessShortCode"), {}, "not JSON")
        problem = (
            checks.head_problem(world, body)
            or checks.push_problem(world, body)
            or checks.merchant_problem(world, body)
        )
        if problem is not None:
            return self._refused(problem, body, "invalid")
        if wait := self._spacing():
            return self._refused(world.spike(wait), body, "429")
        phone = text(body, "PhoneNumber")
        attempt = Attempt(phone, int(text(body, "Amount")), text(body, "CallBackURL"))
        choice = world.plans.choose(attempt, world.knobs.default)
        if (refused := self._token_dies(choice, attempt, body)) is not None:
            return refused
        if (at_once := self._by_plan(choice.plan, request, body)) is not None:
            world.plans.spend(choice, attempt)
            return at_once
        if world.knobs.lock and any(p.open and p.phone == phone for p in world.pushes):
            # The push has used nothing: its script waits for the next one.
            return self._refused(world.error(500, "500.001.1001", shapes.LOCKED), body, "locked")
        world.plans.spend(choice, attempt)
        if choice.plan.answer == "swallow":
            world.note("push", outcome="swallowed", **_asked(body))
            return await self._hang_up(request)
        return await self._answer(self._accept(body, choice.plan), request)

    def _token_dies(
        self, choice: Choice, attempt: Attempt, body: dict[str, Any]
    ) -> web.Response | None:
        """Refuse the token of the first of two tries, by a row that wants it."""
        world, wanted = self._world, choice.plan.answer
        if choice.again or wanted not in TOKEN_ROWS:
            return None
        world.plans.keep_for_second_try(choice, attempt)
        world.tokens.clear()
        if wanted == "token_replaced":
            # Another client with the same key has fetched a newer one.
            self._oauth.issue()
        if wanted == "oauth_refused":
            world.knobs.oauth_refusals, world.knobs.oauth_refusal = 1, "empty"
        return self._refused(self._oauth.refusal("stk"), body, wanted)

    def _by_plan(
        self, plan: Plan, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse | None:
        """Return the refusal that the plan wants, or None."""
        world = self._world
        if plan.answer == "lock":
            return self._refused(world.error(500, "500.001.1001", shapes.LOCKED), body, "locked")
        if plan.answer == "bad_callback_url":
            return self._refused(world.invalid("CallBackURL"), body, "invalid")
        if plan.answer == "malformed_200":
            return self._refused(web.json_response({"ok": True}), body, "malformed")
        if plan.answer == "response_code_1":
            told = {
                "MerchantRequestID": world.ids.merchant_request(),
                "CheckoutRequestID": world.ids.checkout(
                    world.clock.now(), text(body, "PhoneNumber")
                ),
                "ResponseCode": "1",
                "ResponseDescription": "The service request was rejected",
                "CustomerMessage": "The service request was rejected",
            }
            return self._refused(web.json_response(told), body, "ResponseCode 1")
        if plan.answer in ("ok", "hold", "late", "swallow", *TOKEN_ROWS):
            return None
        world.note("push", outcome=f"fault {plan.answer}", **_asked(body))
        return world.fault(plan.answer, request)

    def _accept(self, body: dict[str, Any], plan: Plan) -> Push:
        world = self._world
        now = world.clock.now()
        phone = text(body, "PhoneNumber")
        push = Push(
            merchant_id=world.ids.merchant_request(),
            checkout_id=world.ids.checkout(now, phone),
            shortcode=text(body, "BusinessShortCode"),
            party_b=text(body, "PartyB"),
            till=text(body, "TransactionType") == "CustomerBuyGoodsOnline",
            phone=phone,
            amount=int(text(body, "Amount")),
            reference=text(body, "AccountReference"),
            description=text(body, "TransactionDesc"),
            callback_url=text(body, "CallBackURL"),
            plan=plan,
            at=now,
            began=world.clock.elapsed(),
        )
        world.pushes.append(push)
        world.note("push", outcome="accepted", **push.told())
        self._life.start(push)
        return push

    async def _answer(self, push: Push, request: web.Request) -> web.StreamResponse:
        world, plan = self._world, push.plan
        if plan.answer == "hold":
            return await self._hang_up(request)
        if plan.answer_after_callback:
            await push.called.wait()
        if plan.answer_after_s:
            await world.clock.sleep(plan.answer_after_s)
        accepted = "Success. Request accepted for processing"
        return web.json_response(
            {
                "MerchantRequestID": push.merchant_id,
                "CheckoutRequestID": push.checkout_id,
                "ResponseCode": "0",
                "ResponseDescription": accepted,
                "CustomerMessage": accepted,
            }
        )

    async def _hang_up(self, request: web.Request) -> web.StreamResponse:
        """No answer for long, then the connection closes."""
        await self._world.clock.sleep(self._world.knobs.hold_s)
        return self._world.fault("reset", request)

    def _refused(self, answer: web.Response, body: dict[str, Any], why: str) -> web.Response:
        self._world.note(
            "push", outcome="refused", why=why, answer=answer.text, **_asked(body)
        )  # fmt: skip
        return answer

    def _spacing(self) -> float:
        """Seconds of the fake's world still to wait, by the knob pushSpacingS."""
        world = self._world
        left = world.last_push + world.knobs.push_spacing_s - world.clock.elapsed()
        if world.knobs.push_spacing_s and left > 0:
            return left
        world.last_push = world.clock.elapsed()
        return 0

    async def query(self, request: web.Request) -> web.StreamResponse:
        world = self._world
        if fault := world.knobs.faults.get("query"):
            world.note("query", outcome=f"fault {fault}")
            return world.fault(fault, request)
        if wait := self._spike_arrest():
            world.note("query", outcome="429")
            return world.spike(wait)
        if refusal := self._oauth.check(request, "query"):
            return refusal
        body = await checks.read_body(request)
        if body is None:
            world.note("query", outcome="not JSON")
            return world.error(400, "400.002.05", "Invalid Request Payload")
        problem = checks.head_problem(world, body) or checks.merchant_problem(world, body)
        if problem is not None:
            world.note("query", outcome="invalid", answer=problem.text)
            return problem
        push = world.push_of(text(body, "CheckoutRequestID"))
        answer, outcome = self._told(push, text(body, "BusinessShortCode"))
        world.note("query", outcome=outcome, checkoutRequestId=text(body, "CheckoutRequestID"))
        return answer

    def _told(self, push: Push | None, shortcode: str) -> tuple[web.Response, str]:
        world = self._world
        if push is None or push.shortcode != shortcode:
            return world.invalid("CheckoutRequestID"), "unknown id"
        plan, now = push.plan, world.clock.elapsed()
        push.queries += 1
        if push.last_query is not None and now - push.last_query < plan.query_spacing_s:
            return world.spike(plan.query_spacing_s), "429"
        push.last_query = now
        if now - push.began < max(plan.early_s, world.knobs.too_early_s):
            return world.invalid("CheckoutRequestID"), "too early"
        if plan.query == "html":
            return shapes.html(), "html"
        checkout_id = push.checkout_id
        if plan.query == "wrong_id":
            code, checkout_id = "0", world.ids.checkout(push.at, push.phone)
        elif plan.query == "pending":
            code = "4999"
        elif plan.query == "truth":
            code = push.code or "4999"
        else:
            code = plan.query if now - push.began >= plan.query_from_s else "4999"
        if code == "4999" and self._says_500(push):
            told = shapes.error(
                push.checkout_id, 500, "500.001.1001", "The transaction is being processed"
            )
            return told, "pending 500"
        return web.json_response(shapes.query_answer(push.merchant_id, checkout_id, code)), code

    def _says_500(self, push: Push) -> bool:
        pending = self._world.knobs.pending
        return pending == "500" or (pending == "mixed" and push.queries % 2 == 0)

    def _spike_arrest(self) -> float:
        """Seconds to wait; 0 if there was a token in the app's bucket."""
        world, knobs = self._world, self._world.knobs
        if not knobs.query_limited or not knobs.query_messages:
            return 0
        every = knobs.query_period_s / knobs.query_messages
        now = world.clock.elapsed()
        have = knobs.query_burst if world.query_tokens is None else world.query_tokens
        have = min(knobs.query_burst, have + (now - world.query_at) / every)
        world.query_at = now
        world.query_tokens = have - 1 if have >= 1 else have
        return 0 if have >= 1 else (1 - have) * every


def _asked(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "phone": text(body, "PhoneNumber"),
        "amount": text(body, "Amount"),
        "callbackUrl": text(body, "CallBackURL"),
    }

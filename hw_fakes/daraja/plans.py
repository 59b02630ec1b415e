"""The rows of fake_scenarios.json as plans, and which push gets which: by script, number, or amount."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hw_fakes.daraja.knobs import snake

SCENARIOS: tuple[str, ...] = tuple(
    row["id"]
    for row in json.loads((Path(__file__).parent / "fake_scenarios.json").read_text())["scenarios"]
)
# 2547 90 0 90 NN: the last four digits of a number are 90 and the row's place in the file.
SUFFIX = {f"90{place:02d}": name for place, name in enumerate(SCENARIOS, 1)}
# An amount in this range takes the row too: 190 001 is the first.
AMOUNT_BASE = 190_000


def phone_for(scenario: str, lead: str = "25470800") -> str:
    """A number that selects this row. Other `lead`s (8 digits) give other customers."""
    return f"{lead}90{SCENARIOS.index(scenario) + 1:02d}"


@dataclass(frozen=True)
class Callback:
    """One message. `code` None is the truth's; `at_s` counts from the push, else `after_s` from the outcome.

    `where`: own (the push's own address), token (the last part of it is another), id (another checkout id).
    """

    code: str | None = None
    at_s: float | None = None
    after_s: float = 0.0
    variant: str = "plain"
    copies: int = 1
    where: str = "own"


@dataclass(frozen=True)
class Plan:
    """What one push will live through. `code` is the truth: 0 moves the money.

    `answer`: ok, or another of stk.ANSWERS. `query`: truth (4999 until the outcome), pending (for ever), html,
    or a code from `query_from_s` on. `done_s` None: the knob answerS. `other_amount`: so many shillings come.
    """

    name: str
    answer: str = "ok"
    answer_after_s: float = 0.0
    answer_after_callback: bool = False
    by_person: bool = False
    prompt: bool = True
    code: str = "0"
    done_s: float | None = None
    query: str = "truth"
    query_from_s: float = 0.0
    early_s: float = 0.0
    query_spacing_s: float = 0.0
    callbacks: tuple[Callback, ...] = (Callback(),)
    c2b: str = "auto"
    c2b_after_s: float | None = None
    other_amount: bool = False
    then_pays_till: bool = False


NEVER: tuple[Callback, ...] = ()


def _fails(name: str, code: str, done_s: float | None = None, **more: Any) -> Plan:
    return Plan(name, code=code, done_s=done_s, **more)


_PLANS = [
    Plan("ok"),
    Plan("ok_fast", done_s=1),
    Plan("callback_before_push_response", answer_after_callback=True, answer_after_s=3, done_s=1),
    _fails("cancel", "1032"),
    _fails("wrong_pin", "2001"),
    _fails("funds", "1"),
    _fails("unreachable", "1037", 60, prompt=False),
    _fails("expired", "1019", 60),
    _fails("busy_async", "1001", 3, prompt=False),
    _fails("busy_sync", "1001", answer="lock"),
    _fails("rule_limited", "17", 3, prompt=False),
    _fails("product_mismatch", "2028", 3, prompt=False),
    _fails("operator_missing", "SFC_IC0003", 3, prompt=False),
    _fails("push_9999", "9999", 3, prompt=False),
    Plan("lost_callback_paid", callbacks=NEVER, c2b="no"),
    Plan("lost_callback_paid_c2b", query="pending", callbacks=NEVER, c2b="yes", done_s=18, c2b_after_s=2),
    _fails("lost_callback_unpaid", "1032", callbacks=NEVER),
    Plan("everything_silent_paid", query="pending", callbacks=NEVER, c2b="no"),
    _fails("everything_silent_unpaid", "1032", query="pending", callbacks=NEVER),
    Plan("late_success", query="pending", callbacks=(Callback(at_s=150),), c2b="no"),
    Plan("late_success_after_failed_query", query="1037", query_from_s=60,
         callbacks=(Callback(at_s=90),), c2b="no"),
    Plan("contradiction_cb_ok_query_failed", query="1"),
    Plan("contradiction_cb_failed_query_ok", callbacks=(Callback("1032"),), c2b="yes", c2b_after_s=5),
    Plan("dup_callback", callbacks=(Callback(copies=4),)),
    Plan("dup_conflicting_callback", callbacks=(Callback("1032"), Callback("0", after_s=3))),
    Plan("c2b_and_callback", c2b="yes"),
    Plan("wrong_amount", callbacks=(Callback(),), other_amount=True),
    _fails("spoofed_callback", "1032", 60, query="pending", callbacks=(
        Callback("0", at_s=5, where="token"), Callback("0", at_s=6, where="id"))),
    Plan("malformed_callback", c2b="no",
         callbacks=(Callback(variant="invalid_json"), Callback(after_s=1, variant="missing_fields"))),
    Plan("types_variant", callbacks=(Callback(variant="types"),)),
    Plan("too_early_query", early_s=3),
    Plan("rate_limited_query", query_spacing_s=12, callbacks=NEVER, c2b="no"),
    Plan("query_html_503", query="html"),
    Plan("token_expired", answer="token_expired"),
    Plan("token_replaced", answer="token_replaced"),
    Plan("oauth_400_empty", answer="oauth_refused"),
    Plan("push_timeout_prompted", answer="hold", c2b="yes"),
    Plan("push_timeout_not_prompted", answer="swallow"),
    Plan("push_500_busy", answer="busy"),
    Plan("push_ResponseCode_1", answer="response_code_1"),
    Plan("invalid_callback_url", answer="bad_callback_url"),
    Plan("double_tap"),
    Plan("restart_mid_flight"),
    Plan("restart_before_response", answer="late", answer_after_s=10),
    # Asked by push after all, this customer cancels it and pays the till by hand.
    _fails("customer_pays_till_directly", "1032", 5, then_pays_till=True),
    Plan("reversal_after_paid"),
    # Not in the file: what the sheet of errors lists besides, and a person at the page.
    Plan("phone", by_person=True),
    Plan("push_503", answer="503"),
    Plan("push_html", answer="html"),
    Plan("push_empty", answer="empty"),
    Plan("push_500", answer="500"),
    Plan("push_quota", answer="quota"),
    Plan("push_429", answer="429"),
    Plan("push_soap", answer="soap"),
    Plan("push_reset", answer="reset"),
    Plan("push_no_product", answer="no_product"),
    Plan("push_waf_200", answer="waf200"),
    Plan("push_waf_403", answer="waf403"),
    Plan("push_waf_503", answer="waf503"),
    Plan("push_spike_500", answer="spike500"),
    Plan("push_quota_429", answer="quota429"),
    _fails("push_1025", "1025", 3, prompt=False),
    Plan("push_malformed_200", answer="malformed_200"),
    Plan("wrong_id_query", query="wrong_id"),
    Plan("unknown_code_query", query="7777"),
    Plan("unknown_code_callback", code="7777"),
    Plan("bad_debt", code="E3008", prompt=False, done_s=3),
]  # fmt: skip
PLANS = {plan.name: plan for plan in _PLANS}


def changed(plan: Plan, changes: dict[str, Any]) -> Plan:
    """The plan with fields of its own, snake or camel; `callbacks` as a list of objects. ValueError if unknown."""
    known = {each.name for each in fields(Plan)} - {"name"}
    values = {snake(name): value for name, value in changes.items()}
    if stray := set(values) - known:
        raise ValueError(
            f"a plan has no {', '.join(sorted(stray))}; it has {', '.join(sorted(known))}"
        )
    if "callbacks" in values:
        try:
            values["callbacks"] = tuple(
                each if isinstance(each, Callback) else Callback(**{snake(k): v for k, v in each.items()})
                for each in values["callbacks"]
            )  # fmt: skip
        except TypeError as error:
            raise ValueError(str(error)) from None
    return replace(plan, **values)


@dataclass
class Script:
    """The next `times` pushes that fit (None fits all) get `plan`."""

    plan: Plan
    phone: str | None = None
    amount: int | None = None
    times: int = 1


@dataclass(frozen=True)
class Attempt:
    """The fields of a push by which its second try is known: after a refused token a client sends the same again."""

    phone: str
    amount: int
    callback_url: str


@dataclass(frozen=True)
class Choice:
    """The plan of one push, and what `Plans.spend` takes away once the push has used it."""

    plan: Plan
    script: Script | None = None
    again: bool = False


class Plans:
    """Choose the plan of each push: by script, number, amount, default. A CallBackURL chooses nothing.

    One thing outlives a push: a plan that refused its token stays for the second try of that attempt.
    """

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self._again: dict[Attempt, Plan] = {}

    def script(
        self, scenario: str, *, phone: str | None, amount: int | None, times: int,
        changes: dict[str, Any],
    ) -> Script:  # fmt: skip
        if scenario not in PLANS:
            raise ValueError(f"unknown scenario {scenario}; there are {', '.join(PLANS)}")
        made = Script(changed(PLANS[scenario], changes), phone, amount, times)
        self.scripts.append(made)
        return made

    def choose(self, attempt: Attempt, default: str) -> Choice:
        if attempt in self._again:
            return Choice(self._again[attempt], again=True)
        phone, amount = attempt.phone, attempt.amount
        for script in self.scripts:
            if script.phone in (None, phone) and script.amount in (None, amount):
                return Choice(script.plan, script)
        if phone[-4:] in SUFFIX:
            return Choice(PLANS[SUFFIX[phone[-4:]]])
        if 0 < amount - AMOUNT_BASE <= len(SCENARIOS):
            return Choice(PLANS[SCENARIOS[amount - AMOUNT_BASE - 1]])
        return Choice(PLANS[default])

    def spend(self, choice: Choice, attempt: Attempt) -> None:
        """Take one use of a script away, and end a second try."""
        self._again.pop(attempt, None)
        if (script := choice.script) is None:
            return
        script.times -= 1
        if script.times <= 0:
            self.scripts.remove(script)

    def keep_for_second_try(self, choice: Choice, attempt: Attempt) -> None:
        """Spend the choice, and give its plan to the next push of the same attempt."""
        self.spend(choice, attempt)
        self._again[attempt] = choice.plan

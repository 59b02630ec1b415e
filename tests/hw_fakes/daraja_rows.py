"""The rows of fake_scenarios.json as a client meets them: the push's answer, queries, callbacks, money."""

from __future__ import annotations

from dataclasses import dataclass

ASKED = 450


@dataclass(frozen=True)
class Row:
    """`push` is the HTTP status and the code or ResponseCode, None: no answer. `query`: all answers that
    may come until the push is settled; afterwards only the last of them comes. `calls`: codes at the push's own address."""

    push: tuple[int, str] | None = (200, "0")
    query: tuple[str, ...] = ("4999", "0")
    calls: tuple[int | str, ...] = (0,)
    moves: int = ASKED
    twin: bool | None = None  # None: as the money

    @property
    def announced(self) -> bool:
        return bool(self.moves) if self.twin is None else self.twin


def failed(code: int | str) -> Row:
    return Row(query=("4999", str(code)), calls=(code,), moves=0)


def refused(http: int, code: str) -> Row:
    return Row(push=(http, code), query=(), calls=(), moves=0)


ROWS = {
    "ok": Row(),
    "ok_fast": Row(),
    "callback_before_push_response": Row(),
    "cancel": failed(1032),
    "wrong_pin": failed(2001),
    "funds": failed(1),
    "unreachable": failed(1037),
    "expired": failed(1019),
    "busy_async": failed(1001),
    "busy_sync": refused(500, "500.001.1001"),
    "rule_limited": failed(17),
    "product_mismatch": failed(2028),
    "operator_missing": failed("SFC_IC0003"),
    "push_9999": failed(9999),
    "lost_callback_paid": Row(calls=(), twin=False),
    "lost_callback_paid_c2b": Row(query=("4999",), calls=()),
    "lost_callback_unpaid": Row(query=("4999", "1032"), calls=(), moves=0),
    "everything_silent_paid": Row(query=("4999",), calls=(), twin=False),
    "everything_silent_unpaid": Row(query=("4999",), calls=(), moves=0),
    "late_success": Row(query=("4999",), twin=False),
    "late_success_after_failed_query": Row(query=("4999", "1037"), twin=False),
    "contradiction_cb_ok_query_failed": Row(query=("1",)),
    "contradiction_cb_failed_query_ok": Row(calls=(1032,)),
    "dup_callback": Row(calls=(0, 0, 0, 0)),
    "dup_conflicting_callback": Row(calls=(1032, 0)),
    "c2b_and_callback": Row(),
    "wrong_amount": Row(moves=45),
    "types_variant": Row(calls=("0",)),
    "too_early_query": Row(query=("too early", "4999", "0")),
    "rate_limited_query": Row(query=("429", "4999", "0"), calls=(), twin=False),
    "query_html_503": Row(query=("html",)),
    "token_expired": Row(push=(404, "404.001.03")),
    "token_replaced": Row(push=(404, "404.001.03")),
    "push_timeout_prompted": Row(push=None),
    "push_timeout_not_prompted": Row(push=None, query=(), calls=(), moves=0),
    "push_500_busy": refused(500, "500.003.02"),
    "push_ResponseCode_1": refused(200, "1"),
    "invalid_callback_url": refused(400, "400.002.02"),
    "double_tap": Row(),
    "restart_mid_flight": Row(),
    "restart_before_response": Row(),
    "reversal_after_paid": Row(),
}

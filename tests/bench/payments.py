"""The payments' figures of `make bench`: from M-Pesa's callback to the till's event.

Beside it, on the same payments, what the articles' ways would have shown: a look at fixed times after the
request, and a look when the customer gives the phone back. Real time, the real daemon, the real relay.
"""

from __future__ import annotations

import asyncio
import bisect
import random
import time
from pathlib import Path

import aiohttp

from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja
from hw_fakes.ports import free_port
from hw_fakes.relay import RelayProcess
from tests.support.daemon import Daemon
from tests.support.mpesa_shop import MpesaTill

PAYMENTS = 200
# Requests are spread over so many seconds; a customer takes from 3 to 45 s.
OVER_S = 20.0
ANSWER_S = (3.0, 45.0)
# The articles' fixed schedule, in seconds after the request.
FIXED_S = (10.0, 30.0, 70.0)
# When a cashier or an app looks once more after the customer is done: the articles' own figure for it.
RETURN_S = (1.0, 2.0)


def quantile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def line(name: str, values: list[float], unit: float, word: str) -> str:
    half, most, worst = (quantile(values, q) * unit for q in (0.5, 0.99, 1.0))
    return f"{name:42s} p50 {half:8.1f} {word}   p99 {most:8.1f} {word}   max {worst:8.1f} {word}"


async def customers(
    till: MpesaTill, fake: FakeDaraja, first: int
) -> dict[str, tuple[float, float]]:
    """Phone -> (from callback to event, from request to outcome), in seconds, of PAYMENTS payments."""
    told: dict[str, float] = {}
    asked: dict[str, float] = {}
    phones = {}
    async with till.screen() as screen:

        async def one(number: int) -> None:
            await asyncio.sleep(random.uniform(0, OVER_S))
            phone = f"2547{first + number:08d}"
            fake.script("ok", phone=phone, done_s=random.uniform(*ANSWER_S))
            asked[phone] = time.monotonic()
            reply = await till.push(f"bench-{phone}", f"B-{phone}", "100.00", phone)
            assert reply.status == 202, reply.json
            phones[reply.json["paymentId"]] = phone

        await asyncio.gather(*(one(number) for number in range(PAYMENTS)))

        def all_paid() -> bool:
            for event in screen.events:
                if event.kind == "payment.changed" and event.data["state"] == "PAID":
                    # perf_counter and monotonic are one clock on Linux.
                    told.setdefault(phones[event.data["paymentId"]], event.at)
            return len(told) == PAYMENTS

        await screen.until(all_paid, "all payments")
    found = {}
    for entry in fake.entries("callback"):
        if entry["kind"] != "stk":
            continue
        push = next(p for p in fake.pushes if p.checkout_id == entry["checkoutRequestId"])
        if push.phone in told:
            left = entry["sentMonotonic"]
            found[push.phone] = (told[push.phone] - left, left - asked[push.phone])
    return found


class Stalls:
    """How long this process itself stood still: it plays M-Pesa and the till on the same cores, and what it
    could not measure in time is no figure of the gateway's."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._task = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.worst_s = max(self.worst_s, time.monotonic() - before - 0.01)

    def end(self) -> float:
        self._task.cancel()
        return self.worst_s


def fixed(after_s: float) -> float:
    """How long a payment that was decided so long after its request waits for the next fixed look."""
    at = bisect.bisect_left(FIXED_S, after_s)
    return FIXED_S[at] - after_s if at < len(FIXED_S) else float("inf")


async def payments(folder: Path) -> None:
    """One run against one fake: through the relay, then straight to the box."""
    direct = free_port()
    async with (
        FakeDaraja(query_limited=True) as fake,
        RelayProcess(folder / "relay", more='unlimited = ["127.0.0.0/8"]\n') as relay,
    ):
        (name, secret), *_ = relay.secrets.items()
        secrets = {
            "GATEWAY_MPESA_CONSUMER_KEY": KEY,
            "GATEWAY_MPESA_CONSUMER_SECRET": SECRET,
            "GATEWAY_MPESA_PASSKEY": PASSKEY,
            "GATEWAY_MPESA_RELAY_SECRET": secret,
        }
        daemon = Daemon(
            folder / "shop",
            f"""[mpesa]
environment = "sandbox"
base_url = "{fake.url}"
shortcode = "174379"
callback_url = "https://relay.test/{name}"
relay_url = "{relay.url}"
relay_gateway = "{name}"
direct_host = "127.0.0.1"
direct_port = {direct}
""",
            secrets,
        )
        (folder / "shop").mkdir(exist_ok=True)
        async with (
            daemon,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            till = MpesaTill(session, daemon.url, "till-1")
            every: list[float] = []
            ways = {
                "through the relay": relay.url,
                "straight to the box": f"http://127.0.0.1:{direct}",
            }
            print(
                f"M-Pesa, {PAYMENTS} payments each way, callbacks {ANSWER_S[0]:.0f} to {ANSWER_S[1]:.0f} s after the request:"
            )
            for number, (way, url) in enumerate(ways.items(), 1):
                fake.turn(hosts={"relay.test": url})
                stalls = Stalls()
                found = await customers(till, fake, number * 1_000_000)
                stood = stalls.end()
                lags = [lag for lag, _ in found.values()]
                every += [after for _, after in found.values()]
                print(line(f"  callback to event, {way}", lags, 1e3, "ms"))
                print(
                    f"    (the measuring process itself stood still for up to {stood * 1e3:.0f} ms)"
                )
            print(line("  articles' looks at 10, 30, 70 s", [fixed(a) for a in every], 1, "s "))
            back = [random.uniform(*RETURN_S) for _ in every]
            print(line("  a look when the phone comes back", back, 1, "s "))

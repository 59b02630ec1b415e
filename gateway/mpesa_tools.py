"""`pos-gateway mpesa check | register`: whether M-Pesa takes this shop, in words, and its C2B addresses.

Works beside the running gateway or without it. Asks no customer for money.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

from gateway.clock import Clock
from gateway.domain.payment import Reason
from gateway.domain.payment_wire import Ack, AckReply, PullReply, QueryReply, QueryVerdict, Refused
from gateway.mpesa import codes
from gateway.mpesa.account import Account, account_of
from gateway.mpesa.c2b_token import c2b_token
from gateway.mpesa.client import DarajaClient
from gateway.settings import Settings

Say = Callable[[str], None]

OFF = 'M-Pesa is off: mpesa.environment is "disabled" in the settings.'
# Whether Daraja looks at a timestamp's age is unknown (daraja.md 10); a clock this far off is wrong anyway.
SKEW_MAX_S = 60.0
# No push has this id: the answer tells about shortcode and passkey, and about nothing else.
# The list of this time is asked for; M-Pesa keeps 48 hours.
PULL_LOOK = timedelta(days=1)
_NOBODYS_PUSH = "ws_CO_010120200000000000000000000"
_NUMBER = re.compile(r"254[17][0-9]{8}")


async def check(settings: Settings, clock: Clock, say: Say) -> bool:
    """Asks for an access token and says what is wrong: environment, keys, shortcode, passkey, clock.
    True: requests for payment can be sent."""
    if not settings.mpesa.on:
        say(settings.off.get("mpesa", OFF))
        return False
    account = account_of(settings)
    say(f"{account.environment}: {account.base_url}, {_who(account)}")
    async with DarajaClient(account, clock, settings.mpesa.answer_timeout_s) as client:
        refused = await client.ready()
        good = refused is None
        if refused is None:
            say("consumer key and secret: taken")
            good = _said_of_passkey(await client.query(_NOBODYS_PUSH), account, say)
            if settings.mpesa.pull:
                now = clock.now()
                good = _said_of_pull(await client.pull(now - PULL_LOOK, now, 0), say) and good
        else:
            say(f"no access token: {refused.message}")
        good = _said_of_clock(client.skew_s, say) and good
    for line in _ways(settings):
        say(line)
    return good


async def register(
    settings: Settings, clock: Clock, say: Say, *, sure: bool, pull_number: str | None = None
) -> bool:
    """Registers the addresses of C2B messages, and with the shop's nominated number Pull Transactions.
    `sure`: production takes the addresses once, so there a person has said yes."""
    if not settings.mpesa.on:
        say(settings.off.get("mpesa", OFF))
        return False
    if pull_number is not None and not _NUMBER.fullmatch(pull_number):
        say("The number for Pull Transactions is written 2547XXXXXXXX or 2541XXXXXXXX.")
        return False
    account = account_of(settings)
    base = (settings.mpesa.callback_url or "").rstrip("/")
    say(
        f"{account.environment}: messages about {_who(account)} are to go to {base}/c/... and /v/..."
    )
    if account.environment == "production" and not sure:
        say("Safaricom takes these addresses once. If they are right, run it again with --yes.")
        return False
    token = c2b_token(account.passkey, account.shortcode)
    async with DarajaClient(account, clock, settings.mpesa.answer_timeout_s) as client:
        reply = await client.register_c2b(
            f"{base}/c/{token}", f"{base}/v/{token}", settings.mpesa.c2b_version
        )
        done = _said_of_registration("C2B addresses", reply, say)
        if pull_number is not None:
            # What comes there is not documented; it is kept with the results.
            reply = await client.register_pull(pull_number, f"{base}/r/{token}")
            done = _said_of_registration("Pull Transactions", reply, say) and done
    return done


def _who(account: Account) -> str:
    if account.till_number is None:
        return f"paybill {account.shortcode}"
    return f"till {account.till_number} of store {account.shortcode}"


def _said_of_passkey(reply: QueryReply, account: Account, say: Say) -> bool:
    """An id that nobody has is refused by itself only after shortcode and passkey were found good."""
    message = reply.message.lower()
    if reply.code == "400.002.02" and "checkoutrequestid" in message:
        say("shortcode and passkey: taken")
        return True
    if "wrong credentials" in message:
        say(
            "shortcode and passkey do not belong together. For a till the shortcode is the store number"
        )
        return False
    if "merchant does not exist" in message or "businessshortcode" in message:
        say(f"shortcode {account.shortcode} does not exist in {account.environment}")
        return False
    if codes.BLOCKED in reply.message:
        say(f"shortcode and passkey could not be checked: {reply.message}")
        return False
    limited = reply.verdict is QueryVerdict.LIMITED
    why = (
        "M-Pesa takes no more questions for now" if limited else reply.message or "no clear answer"
    )
    say(f"shortcode and passkey could not be checked: {reply.code or '-'} {why}")
    return False


def _said_of_pull(reply: PullReply, say: Say) -> bool:
    """An empty answer is no proof that Pull works: M-Pesa gives it for what was never registered as well."""
    if reply.problem is not None:
        say(f"Pull Transactions: {reply.problem}. Register it: pos-gateway mpesa register --pull")
        return False
    if reply.rows:
        say(f"Pull Transactions: answers, {len(reply.rows)} rows of the last {PULL_LOOK.days} days")
    else:
        say(
            "Pull Transactions: answers without a payment. That proves nothing until one is on it: pay one "
            "shilling and look again"
        )
    return True


def _said_of_clock(skew_s: float | None, say: Say) -> bool:
    if skew_s is None:
        say("clock: M-Pesa did not tell the time")
        return True
    if abs(skew_s) <= SKEW_MAX_S:
        say("clock: agrees with M-Pesa's")
        return True
    way = "slow" if skew_s > 0 else "fast"
    say(f"clock: this machine's is {abs(skew_s):.0f} seconds {way} against M-Pesa's. Set it right")
    return False


def _ways(settings: Settings) -> list[str]:
    part = settings.mpesa
    ways = []
    if part.relay_url is not None:
        ways.append(f"messages come through the relay {part.relay_url}")
    if part.direct_port is not None:
        ways.append(f"messages come straight to port {part.direct_port}")
    if not ways:
        ways.append(
            "messages do not reach this box (no relay, no direct port): it asks M-Pesa, "
            "and receipt numbers come late or not at all"
        )
    return ways


def is_registered_before(reply: Refused) -> bool:
    return reply.code == codes.REGISTERED_BEFORE or "already registered" in reply.message.lower()


def _said_of_registration(what: str, reply: AckReply, say: Say) -> bool:
    match reply:
        case Ack():
            say(f"{what}: registered")
            return True
        case Refused() if is_registered_before(reply):
            say(
                f"{what}: registered before. If they are another address, remove them on Safaricom's "
                "portal (Self Services, URL Management) and run this again"
            )
            return False
        case Refused() if reply.reason is Reason.NOT_SENT:
            say(f"{what}: not registered: {reply.message or reply.code}. Try again later")
            return False
        case Refused():
            say(f"{what}: refused: {reply.code} {reply.message}")
            return False
        case _:
            say(
                f"{what}: no clear answer ({reply.message}). Run this again: it will say if it is done"
            )
            return False

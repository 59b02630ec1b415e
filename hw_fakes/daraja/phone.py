"""The customers' phones as a page: the prompt with its PIN, cancel and ignore, and paying a till by hand."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web

from hw_fakes.daraja import checks
from hw_fakes.daraja.bank import Payment, Wallet
from hw_fakes.daraja.shapes import DESCRIPTIONS
from hw_fakes.daraja.world import Push

if TYPE_CHECKING:
    from hw_fakes.daraja.server import FakeDaraja

SHOWN = 4  # messages of a phone
STYLE = """
*{box-sizing:border-box}
body{margin:0 auto;max-width:60rem;padding:.75rem;font:1rem/1.4 system-ui,sans-serif;background:#eef1ee;color:#17211b}
h1{font-size:1.2rem;margin:.25rem 0 .75rem}h1 a{color:inherit}
.said{background:#fff3c4;border-radius:.5rem;padding:.6rem .8rem;margin:0 0 .75rem}
#phones{display:grid;gap:.75rem;grid-template-columns:repeat(auto-fill,minmax(min(19rem,100%),1fr))}
section,.pay{background:#fff;border-radius:1rem;padding:.9rem;border:1px solid #cfd8d1}
section:not([data-prompt=""]){order:-1}
section h2{margin:0;font-size:1.05rem;display:flex;justify-content:space-between;gap:.5rem}
section h2 a{color:inherit;text-decoration:none}
small{color:#4d5a52}
.prompt{background:#0b5d2b;color:#fff;border-radius:.75rem;padding:.8rem;margin:.7rem 0 .2rem}
.prompt b{font-size:1.5rem;display:block}
label{display:block;margin:.5rem 0 .15rem}
input,select,button{font:inherit;width:100%;min-height:2.75rem;padding:.4rem .6rem;border-radius:.5rem;border:1px solid #7d8b82;background:#fff;color:#17211b}
button{font-weight:600;cursor:pointer;background:#dfe7e1}
button.yes{background:#8fe3a8;border-color:#8fe3a8}
.row{display:grid;grid-template-columns:1fr 1fr 1fr;gap:.4rem;margin-top:.6rem}
ul{list-style:none;margin:.5rem 0 0;padding:0;font-size:.9rem}li{border-top:1px solid #e3e9e4;padding:.3rem 0}
.pay{margin-top:.75rem}.pay h2{margin:0;font-size:1.05rem}
.grid{display:grid;gap:0 .6rem;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));align-items:end}
.go{grid-column:1/-1;margin-top:.7rem}
"""
SCRIPT = """
const here = new URL(location.href);
async function look() {
  try {
    const reply = await fetch('/_fake/phone/part?phone=' + (here.searchParams.get('phone') || ''));
    const fresh = new DOMParser().parseFromString(await reply.text(), 'text/html');
    const list = document.getElementById('phones');
    const there = new Set(Array.from(fresh.querySelectorAll('section'), (each) => each.id));
    for (const each of fresh.querySelectorAll('section')) {
      const old = document.getElementById(each.id);
      if (!old) { list.append(each); continue; }
      const typing = old.contains(document.activeElement) && old.dataset.prompt === each.dataset.prompt;
      if (!typing && old.outerHTML !== each.outerHTML) old.replaceWith(each);
    }
    for (const old of list.querySelectorAll('section')) if (!there.has(old.id)) old.remove();
  } catch { /* the fake is away; asked again */ }
  setTimeout(look, 1000);
}
look();
"""


class PhonePage:
    def __init__(self, fake: FakeDaraja) -> None:
        self._fake = fake

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/_fake/phone", self._page)
        app.router.add_get("/_fake/phone/part", self._part)
        app.router.add_post("/_fake/phone/answer", self._answer)
        app.router.add_post("/_fake/phone/pay", self._pay)

    async def _page(self, request: web.Request) -> web.Response:
        one, said = request.query.get("phone", ""), request.query.get("said", "")
        note = f'<p class="said" role="status">{escape(said)}</p>' if said else ""
        title = f'<a href="/_fake/phone">Phones</a> · {escape(one)}' if one else "Phones"
        html = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<noscript><meta http-equiv="refresh" content="3"></noscript>'
            '<link rel="icon" href="data:,">'
            f"<title>Phones</title><style>{STYLE}</style></head><body><h1>{title}</h1>{note}"
            f'<div id="phones">{self._phones(one)}</div>{self._till_form(one)}'
            f"<script>{SCRIPT}</script></body></html>"
        )
        return web.Response(text=html, content_type="text/html")

    async def _part(self, request: web.Request) -> web.Response:
        phones = self._phones(request.query.get("phone", ""))
        return web.Response(text=phones, content_type="text/html")

    async def _answer(self, request: web.Request) -> web.Response:
        form = await request.post()
        phone, do, one = (str(form.get(name, "")) for name in ("phone", "do", "one"))
        try:
            self._fake.answer(phone, do, str(form.get("pin", "")))
        except ValueError:
            return _back(one, "That prompt is gone.")
        return _back(one, "")

    async def _pay(self, request: web.Request) -> web.Response:
        form = await request.post()
        phone, number, amount, reference, one = (
            str(form.get(name, "")).strip()
            for name in ("phone", "number", "amount", "reference", "one")
        )
        shillings = checks.amount(amount)
        if not checks.PHONE.fullmatch(phone) or shillings is None:
            return _back(one, "A number is 2547.. or 2541.., an amount whole shillings.")
        done = await self._fake.pay(phone, number, shillings, reference)
        if isinstance(done, Payment):
            return _back(one, f"{done.receipt} Confirmed. Ksh{shillings} paid to {number}.")
        why = DESCRIPTIONS.get(done, "the shop refused it")
        return _back(one, f"Not paid: {why} ({done})")

    def _phones(self, one: str) -> str:
        every = list(self._fake.world.bank.wallets.values())
        wallets = [self._fake.wallet(one)] if checks.PHONE.fullmatch(one) else every
        if not wallets:
            return "<p>No phone has been used yet.</p>"
        return "".join(self._phone(wallet, one) for wallet in wallets)

    def _phone(self, wallet: Wallet, one: str) -> str:
        prompt = next(
            (p for p in self._fake.pushes if p.phone == wallet.phone and p.prompted and p.open),
            None,
        )
        told = prompt.checkout_id if prompt and _waits(prompt) else ""
        return (
            f'<section id="p{wallet.phone}" data-prompt="{told}"><h2>'
            f'<a href="/_fake/phone?phone={wallet.phone}">{wallet.phone}</a>'
            f"<span>Ksh{wallet.balance:,}</span></h2>"
            f"<small>{escape(wallet.name)} · PIN {escape(wallet.pin)}</small>"
            f"{self._prompt(prompt, one) if prompt else ''}{self._messages(wallet)}</section>"
        )

    def _prompt(self, push: Push, one: str) -> str:
        merchant = self._fake.world.bank.merchant(push.party_b)
        name = escape(merchant.name if merchant else push.party_b)
        account = "" if push.till else f" Account {escape(push.reference)}."
        ask = f'<div class="prompt">Pay <b>Ksh{push.amount:,}</b> to {name}?{account}'
        if not _waits(push):
            script = escape(push.plan.name)
            return f"{ask}<p>This customer follows the scenario {script}.</p></div>"
        field = f"pin{push.phone}"
        return (
            f'{ask}<form method="post" action="/_fake/phone/answer">'
            f'<input type="hidden" name="phone" value="{push.phone}">'
            f'<input type="hidden" name="one" value="{escape(one)}">'
            f'<label for="{field}">M-PESA PIN</label><input id="{field}" name="pin" type="password"'
            ' inputmode="numeric" autocomplete="off" maxlength="8">'
            '<div class="row"><button class="yes" name="do" value="pin">Send</button>'
            '<button name="do" value="cancel">Cancel</button>'
            '<button name="do" value="ignore">Ignore</button></div></form></div>'
        )

    def _messages(self, wallet: Wallet) -> str:
        mine = [p for p in self._fake.payments if p.phone == wallet.phone][-SHOWN:]
        lines = [
            f"<li>{p.receipt} · {p.at:%H:%M:%S} · "
            f"{'Ksh%s back' % p.amount if p.kind in ('REVERSAL', 'B2C') else 'Ksh%s paid' % p.amount}"
            f" · {escape(p.number)}</li>"
            for p in reversed(mine)
        ]
        return f"<ul>{''.join(lines)}</ul>" if lines else ""

    def _till_form(self, one: str) -> str:
        options = "".join(
            f'<option value="{number}">{number} {escape(merchant.name)}</option>'
            for merchant in self._fake.merchants
            for number in (merchant.tills or (merchant.shortcode,))
        )
        phone = one or next(iter(self._fake.world.bank.wallets), "254708374149")
        return (
            '<form class="pay" method="post" action="/_fake/phone/pay"><h2>Lipa na M-PESA</h2>'
            f'<input type="hidden" name="one" value="{escape(one)}"><div class="grid">'
            f'<div><label for="phone">From</label><input id="phone" name="phone" inputmode="tel"'
            f' value="{escape(phone)}"></div>'
            f'<div><label for="number">To</label><select id="number" name="number">{options}'
            "</select></div>"
            '<div><label for="amount">Ksh</label><input id="amount" name="amount"'
            ' inputmode="numeric"></div>'
            '<div><label for="reference">Account (paybill)</label><input id="reference"'
            ' name="reference"></div>'
            '<div class="go"><button>Pay</button></div></div></form>'
        )


def _waits(push: Push) -> bool:
    return push.answered is not None and not push.answered.done()


def _back(one: str, said: str) -> web.Response:
    query = urlencode({name: value for name, value in (("phone", one), ("said", said)) if value})
    return web.Response(status=303, headers={"Location": f"/_fake/phone?{query}"})

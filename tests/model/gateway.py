"""The steps of the gateway and its tills.

What a fact proves is asked of the product's own table (`product.py`). A world whose
`rules` lack one of its names gets what the gateway did before that rule was there.
"""

from gateway.fiscal.rules import Fact, Verdict
from tests.model.product import verdict
from tests.model.state import (
    FOREIGN,
    NEW,
    Row,
    State,
    World,
    attach,
    doubt,
    holding,
    idle,
    known,
    mismatch,
    put,
    release,
    set_row,
    tell,
)


def send(s: State, k: int, w: World, ph: str):
    """The bytes leave: they arrive, or they are lost on the way."""
    row = s.store.rows[k]
    s = s._replace(cur=k, ph=ph, ans=None)
    again = " again" if ph == "q" else ""
    seen = w.dup == "racy" and bool(holding(s, row.no))
    fl = tuple(sorted((*s.fl, (row.no, k, row.gen, 1, seen))))
    yield f"sale {k} is sent{again} as invcNo {row.no}; the unit accepts it", s._replace(fl=fl)
    yield f"sale {k} is sent{again} as invcNo {row.no}; the bytes are lost", s


def begin(s: State, k: int, w: World):
    if s.gens[k] >= w.gmax:
        return
    gen = s.gens[k] + 1
    row = Row("S", s.store.next, 1, gen, None, 1, 0)
    s = set_row(s._replace(gens=put(s.gens, k, gen)), k, row)
    yield from send(s, k, w, "s")
    if w.link:
        yield f"sale {k} is written ahead; no connection", release(s, k)


def at_rest(s: State, k: int, w: World) -> bool:
    """No sending of this sale can still be signed, as far as the gateway can tell."""
    if (w.host != "in" and "token" not in w.rules) or s.store.hold is not None:
        return False
    row = s.store.rows[k]
    return not row.live if "life" in w.rules else s.inh == (k, row.att)


def released(fact: Fact, s: State, k: int, w: World) -> bool:
    return verdict(fact, at_rest=at_rest(s, k, w)) is Verdict.NOT_SIGNED


def look(s: State, k: int, w: World):
    """One round of the resolver."""
    row, note = s.store.rows[k], ""
    if w.readback:
        held = holding(s, row.no)
        if held:
            _, key, gen = s.sig[held[0]]
            this = (key, gen) == (k, row.gen)
            proves = verdict(Fact.SHOWS_THIS if this else Fact.SHOWS_OTHER)
            if key == FOREIGN and w.alike and "id" not in w.rules:
                proves = Verdict.SIGNED
            if proves is Verdict.SIGNED:
                yield f"the read-back shows sale {k}: attached", attach(s, k, held[0])
                return
            note = " (although the read-back showed another sale)"
            if "other" in w.rules and proves is Verdict.MISMATCH:
                yield f"the read-back shows another sale under {row.no}", mismatch(s, k, w)
                return
        elif released(Fact.SHOWS_NOTHING, s, k, w):
            yield (
                (
                    f"the read-back shows nothing under {row.no} and the unit counts as restarted:"
                    f' found unsigned, the till receives signed:"no"'
                ),
                release(s, k),
            )
            return
    if w.counter:
        if len(s.sig) != s.store.last:
            return
        if "count" in w.rules and released(Fact.COUNTER_EQUAL, s, k, w):
            yield "the receipt counter has not moved and the unit was restarted", release(s, k)
            return
    if w.resend and row.att < 2 and s.store.hold is None:
        again = set_row(s, k, row._replace(att=2, live=1))
        for label, t in send(again, k, w, "q"):
            yield label + note, t


def gateway_waits(s: State, w: World):
    k = s.cur
    if s.ans is not None:
        kind = s.ans[0]
        t = s._replace(ans=None)
        got = f"the gateway receives the answer for sale {k}: "
        yield from answered(t, k, w, got, kind, s.ans)
    fl = tuple(sorted((*x[:3], 0, *x[4:]) for x in s.fl))
    yield f"no answer for sale {k} in time: in doubt", doubt(s._replace(fl=fl, ans=None), k)


FACTS = {
    "ok": Fact.RECEIPT,
    "nr": Fact.NOT_READY,
    "ref": Fact.REFUSAL,
    "dup": Fact.DUPLICATE,
    "unk": Fact.NO_PROOF,
}


def proves(w: World, t: State, k: int, kind: str, ans, first: bool) -> Verdict:
    """The table's verdict; without the rule in this world, what was done before it."""
    fresh = kind != "ok" or not known(t, ans[1], k)
    if kind == "ok" and "fresh" not in w.rules:
        return Verdict.SIGNED
    if kind == "dup" and first and "dupfirst" not in w.rules:
        return Verdict.NOTHING
    if kind == "ref" and not first and "bytes" not in w.rules:
        return Verdict.NOT_SIGNED
    return verdict(FACTS[kind], first, fresh=fresh)


def answered(t: State, k: int, w: World, got: str, kind: str, ans):
    row = t.store.rows[k]
    first = t.ph == "s"
    match proves(w, t, k, kind, ans, first):
        case Verdict.SIGNED:
            yield got + "receipt, 201", attach(t, k, ans[1])
        case Verdict.REJECTED:
            yield got + "refused, 422", tell(idle(set_row(t, k, NEW._replace(st="X"))), k, "rej")
        case Verdict.NOT_SIGNED if kind == "ref":
            yield got + 'refused when sent again, signed:"no"', release(t, k)
        case Verdict.NOT_SIGNED:
            yield got + 'not ready, signed:"no"', release(t, k)
        case Verdict.MISMATCH:
            yield got + "duplicate of a fresh number: signing hold", mismatch(t, k, w)
        case Verdict.NUMBER_USED:
            yield got + "the number is used: in doubt", doubt(t, k, dup=True)
        case Verdict.NOTHING if kind == "nr":
            yield got + "not ready", doubt(t, k, att=row.att - 1)
        case Verdict.NOTHING:
            yield got + kind + ": in doubt", doubt(t, k)


def till_asks(s: State, k: int, w: World):
    row = s.store.rows[k]
    if row.st in "GX":
        yield (
            f"the till of sale {k} asks again",
            tell(s, k, "yes" if row.st == "G" else "rej", row.rc),
        )
    elif row.st in "-R" and s.store.quar[k] < 2:
        hold = s.store.hold
        if hold is not None:
            if hold[1]:
                yield f'the till sends sale {k}: signed:"no"', tell(s, k, "no")
            elif not s.store.quar[k]:
                quar = put(s.store.quar, k, 1)
                yield (
                    f'the till sends sale {k}: signed:"unknown", key noted',
                    s._replace(store=s.store._replace(quar=quar)),
                )
        elif s.cur >= 0:
            t = set_row(s, k, row._replace(st="R"))
            yield f'the till sends sale {k}, the line is busy: signed:"no"', tell(t, k, "no")
        else:
            for label, t in begin(s, k, w):
                yield f"the till sends sale {k}; " + label, t

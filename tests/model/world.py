"""The steps of everything else: the control unit, faults, the gateway's start, the operator."""

from tests.model import product
from tests.model.state import (
    FOREIGN,
    NEW,
    State,
    Store,
    World,
    attach,
    holding,
    idle,
    mismatch,
    put,
    release,
    set_row,
)


def unit_handles(s: State, w: World):
    for x in set(s.fl):
        no, k, gen, awaited, seen = x
        left = list(s.fl)
        left.remove(x)
        t = s._replace(fl=tuple(left))

        def out(ans, t=t, awaited=awaited):
            return t._replace(ans=ans) if awaited else t

        held = holding(s, no)
        repeated = seen if w.dup == "racy" else bool(held) and w.dup != "again"
        if repeated:
            answer, words = {
                "code": (("dup",), "a duplicate code"),
                "racy": (("dup",), "a duplicate code"),
                "replay": (("ok", held and held[0]), "the stored receipt"),
                "generic": (("unk",), "899"),
                "bytes": (("ref",), "a refusal of the bytes"),
            }[w.dup]
            yield f"the unit answers the repeated invcNo {no} with {words}", out(answer)
            continue
        if w.refused and k == 0:
            yield f"the unit refuses the bytes of sale {k}", out(("ref",))
            continue
        signed = t._replace(sig=(*t.sig, (no, k, gen)))
        late = "" if awaited else " (late)"
        label = f"the unit signs sale {k} as invcNo {no}, receipt {len(s.sig) + 1}{late}"
        yield label, out(("ok", len(s.sig)), signed)
        if awaited and w.link:
            yield label + ", answer 894", out(("unk",), signed)
            yield f"the unit answers 894 and does not sign sale {k}", out(("unk",))
            yield f"the unit is not ready (836) and does not sign sale {k}", out(("nr",))
        if awaited and w.after:
            code = "not ready" if w.after == "nr" else "refused"
            yield label + f", answers {code} all the same", out((w.after,), signed)
        if awaited and w.stale and s.sig:
            yield (
                label + ", answers with the receipt before it",
                out(("ok", len(s.sig) - 1), signed),
            )


def shown_at_start(s: State, w: World, st: Store, slack: int, readable: bool):
    """What the unit has that this store lacks, or lacks itself."""
    if w.counter:
        if len(s.sig) > st.last + slack:
            return (1, 0)
        if len(s.sig) < st.last:
            return (1, 1)
    return (1, 0) if readable and w.readback and holding(s, st.next) else None


def held_before(s: State, w: World, st: Store, opened, sound: bool):
    """Why signing is held, without one of the rules `agree` and `copyrow`."""
    hold, slack = st.hold, 1 if opened else 0
    if hold and hold[0] and not hold[1]:
        return hold
    seen = shown_at_start(s, w, st, slack, not opened)
    agreed = (
        w.counter
        and len(s.sig) == st.last
        and sound
        and not ("copyrow" in w.rules and st.rest and opened)
    )
    marked = w.host == "in" and s.mark > st.next - 1 + slack
    if seen is not None:
        return (1, 0) if st.rest or marked else seen
    if agreed:
        return None
    if hold is None and st.rest:
        return (0, 0)
    return (1, 0) if hold is None and marked else hold


def restart(s: State, w: World):
    st = s.store
    rows = tuple(r._replace(st="D") if r.st == "S" else r for r in st.rows)
    opened = [k for k, r in enumerate(rows) if r.st == "D"]
    st = st._replace(rows=rows)
    hold, slack = st.hold, 1 if opened else 0
    sound = "agree" not in w.rules or w.host == "in" or not s.fl  # at_work_s has passed
    mark = s.mark if w.host == "in" else None
    if {"agree", "copyrow"} <= w.rules:
        seen = shown_at_start(s, w, st, slack, not opened)
        equal = w.counter and len(s.sig) == st.last
        hold = product.why_held(
            hold, st.rest, bool(opened), st.next, st.last, mark, seen, equal, sound
        )
    else:
        hold = held_before(s, w, st, opened, sound)
    quar, rest = st.quar, st.rest
    if hold is None:
        rest, quar = 0, tuple(0 if q == 1 else q for q in quar)
    st = st._replace(hold=hold, quar=quar, rest=rest)
    mark = st.next - 1 if hold is None and w.host == "in" else s.mark
    k = opened[0] if opened else -1
    inh = (k, rows[k].att) if opened and w.host == "in" else None
    after = "" if hold is None else " (signing hold)"
    yield (
        "the gateway starts" + after,
        s._replace(store=st, up=1, cur=k, ph="d" if opened else "i", inh=inh, ans=None, mark=mark),
    )


def faults(s: State, w: World):
    if s.up and s.crash:
        goes_on = w.host != "in" or w.remembers
        fl = tuple(sorted((*x[:3], 0, *x[4:]) for x in s.fl)) if goes_on else ()
        rows = s.store.rows
        if w.host == "in":
            rows = tuple(r._replace(live=0) for r in rows)
        yield (
            "the gateway dies" + (", and the unit with it" if w.host == "in" else ""),
            s._replace(
                store=s.store._replace(rows=rows),
                up=0,
                cur=-1,
                ph="i",
                inh=None,
                ans=None,
                fl=fl,
                crash=s.crash - 1,
            ),
        )
    if s.ucrash and w.host == "ext" and (s.fl or any(r.live for r in s.store.rows)):
        rows = tuple(r._replace(live=0) for r in s.store.rows)
        yield (
            "the external unit is restarted",
            s._replace(store=s.store._replace(rows=rows), fl=(), ans=None, ucrash=s.ucrash - 1),
        )
    if s.writer:
        for no in {s.store.next, s.store.next + 1}:
            if not holding(s, no):
                yield (
                    f"a second writer signs its own sale as invcNo {no}",
                    s._replace(sig=(*s.sig, (no, FOREIGN, 0)), writer=s.writer - 1),
                )
    if w.loss and s.snap is None:
        yield "(the store's state that will come back)", s._replace(snap=s.store)
    if w.loss and s.snap not in (None, "used") and not s.up and s.snap != s.store:
        rows = s.snap.rows
        if w.host == "in":
            rows = tuple(r._replace(live=0) for r in rows)
        st = s.snap._replace(rows=rows, rest=1 if w.loss == "restore" else 0)
        if "noticed" in w.rules and w.loss == "lied":
            st = st._replace(hold=(1, 0))
        yield "the store is the older one again", s._replace(store=st, snap="used")


def decisions(s: State, w: World):
    """What an operator may do. honest (full, late, number): from the portal, which shows receipts once
    they are uploaded. full waits for the upload. number looks under the sale's invcNo only."""
    if s.upl < len(s.sig) and w.operator not in ("", "full"):
        yield f"receipt {s.upl + 1} reaches the portal", s._replace(upl=s.upl + 1)
    if not s.ops or not s.up or not w.operator:
        return
    shown = s.sig if w.operator == "full" or "upload" in w.rules else s.sig[: s.upl]
    if s.ph == "d":
        yield from about_sale(s, w, shown)
    yield from numbering(s, w, shown)


def contradicted(s: State, w: World, entered) -> bool:
    row = s.store.rows[s.cur]
    under = holding(s, row.no) if w.readback else []
    return product.contradicted(
        row.no,
        entered,
        under[0] + 1 if under else None,
        len(s.sig) if w.counter else None,
        s.store.last,
        entered is None and bool(row.dup),
    )


def about_sale(s: State, w: World, shown):
    """SIGNED, NOT_SIGNED, or another sale in its place."""
    t = s._replace(ops=s.ops - 1)
    k = s.cur
    row = s.store.rows[k]
    by_key = w.operator != "number" or ("search" in w.rules and product.demands_search())
    for i, e in enumerate(shown):
        if "contra" in w.rules and contradicted(s, w, i + 1):
            continue
        if not by_key and e[0] != row.no:
            continue
        if (e[1] == k or w.operator == "careless") and not any(r.rc == i for r in s.store.rows):
            yield f"the operator decides SIGNED for sale {k} with receipt {i + 1}", attach(t, k, i)
    hides = any(e[1] == k and (by_key or e[0] == row.no) for e in shown)
    under = [
        e
        for i, e in enumerate(shown)
        if e[1] != k and (e[0] == row.no or (w.counter and i >= s.store.last))
    ]
    rest_ok = not (
        "rest" in w.rules and product.ends_by_restart_only(w.host, w.bounded, bool(row.live))
    ) and (not w.bounded or not s.fl)
    contra = "contra" in w.rules and contradicted(s, w, None)
    own = tuple(
        (r.no, j, r.rc + 1) for j, r in enumerate(s.store.rows) if r.st == "G" and r.rc is not None
    )
    own = tuple(sorted(own, key=lambda each: -each[2]))[:1]
    newest = (shown[-1][0], shown[-1][1], len(shown)) if shown else None
    refused = "search" in w.rules and (
        w.operator != "careless" and product.portal_refuses(row.no, k, own, newest)
    )
    held = "copyrow" in w.rules and product.is_held(s.store.hold)
    if (under or refused) and "search" in w.rules and not hides:
        if product.is_another_sale(own, newest, contra):
            yield (
                f"the operator reports another sale in its place ({row.no}): signing hold",
                mismatch(t, k, w),
            )
    elif rest_ok and not contra and not held and (not hides or w.operator == "careless"):
        yield f'the operator decides NOT_SIGNED for sale {k}: signed:"no"', release(t, k)


def numbering(s: State, w: World, shown):
    """The next invoice number, after a hold or because the portal shows a higher one."""
    k = s.cur
    top = max([e[0] for e in shown], default=0)
    hold = s.store.hold
    if hold is None and top < s.store.next:
        return
    nxt = max(product.least_next(s.store.next, s.mark), top + 1)
    skips = nxt > s.store.next
    if "skip" in w.rules:
        missing = product.is_missing(hold, s.store.next, nxt)
    else:
        missing = bool(hold and not hold[1] and (hold[0] or skips))
    if "agree" in w.rules and s.fl:
        return
    if "drain" in w.rules and product.demands_tills(hold, s.store.next, nxt):
        if any(
            s.gens[i] and not q and r.st not in "GXSD"
            for i, (r, q) in enumerate(zip(s.store.rows, s.store.quar))
        ):
            return
    quar = tuple(
        2 if missing and (q or s.store.rows[i].st in "R") else (q if missing or q == 2 else 0)
        for i, q in enumerate(s.store.quar)
    )
    store = s.store._replace(next=nxt, hold=None, rest=0, quar=quar)
    t = s._replace(ops=s.ops - 1, store=store, mark=nxt - 1)
    if "copyrow" in w.rules and hold and s.ph == "d":
        # What the lost store did with its open sale is not known: never sent again.
        t = idle(set_row(t, k, NEW._replace(st="R"), quar=put(quar, k, 2)))
    yield f"the operator sets the next invcNo to {nxt}", t

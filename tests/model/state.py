"""The state of the model: gateway, store, tills, control unit; and its smallest changes."""

from collections import namedtuple
from dataclasses import dataclass

FOREIGN = 9  # the sale of a second writer

# One invoice row: state, invcNo, sendings under this number, write-ahead generation (decides cfmDt and
# the bytes), index of the attached receipt, sent in the unit's present life, a duplicate was answered.
Row = namedtuple("Row", "st no att gen rc live dup")
NEW = Row("-", 0, 0, 0, None, 0, 0)
# What a crash leaves (store), what it takes (vol), the unit, and the observer's own records.
Store = namedtuple("Store", "rows next last hold rest quar")
State = namedtuple(
    "State",
    "store up cur ph inh ans sig fl upl gens no_gen final crash ucrash ops writer snap mark bad",
)
# hold: None, (seen, complete). ph: i idle, s sent, d in doubt, q sent again.
# sig: receipts in counter order (invcNo, key, generation). fl: accepted, not yet ended
# (invcNo, key, generation, answer awaited, number was signed when accepted).


@dataclass(frozen=True)
class World:
    """One configuration: the unit's behaviour, the settings, the faults allowed, the rules."""

    name: str = ""
    keys: int = 1
    host: str = "in"  # in: dies with the gateway. ext: goes on.
    bounded: bool = True  # an accepted request ends within at_work_s
    dup: str = "code"  # code, replay, generic, again, racy, bytes
    readback: bool = False
    counter: bool = False
    resend: bool = True
    link: bool = False  # 894 before or after the number is consumed; NOT_READY codes
    refused: bool = False  # the unit refuses the bytes of key 0
    operator: str = ""  # "", full, late, number, careless
    crash: int = 1
    ucrash: int = 0
    ops: int = 1
    writer: int = 0  # sales of a second writer
    alike: bool = False  # they agree in total, buyer and second
    loss: str = ""  # "", lied (not noticed), restore (marked as a copy)
    stale: bool = False  # the unit may answer with its previous receipt
    after: str = ""  # code that the unit may give although it signed: nr (836, E11) or ref (910)
    remembers: bool = False  # a restarted unit still signs what it had accepted
    gmax: int = 3  # write-aheads per key
    rules: frozenset = frozenset()


def start_state(w: World) -> State:
    zero = (0,) * w.keys
    store = Store((NEW,) * w.keys, 1, 0, None, 0, zero)
    none = (None,) * w.keys
    return State(
        store,
        1,
        -1,
        "i",
        None,
        None,
        (),
        (),
        0,
        zero,
        (-1,) * w.keys,
        none,
        w.crash,
        w.ucrash,
        w.ops,
        w.writer,
        None,
        0,
        "",
    )


def put(tup, i, value):
    return (*tup[:i], value, *tup[i + 1 :])


def set_row(s: State, k: int, row: Row, **more) -> State:
    return s._replace(store=s.store._replace(rows=put(s.store.rows, k, row), **more))


def tell(s: State, k: int, what, rc=None) -> State:
    """The till of key k gets an answer. 'unk' promises nothing."""
    if what == "unk":
        return s
    if what == "no":
        if s.final[k] is not None:
            s = s._replace(bad='P2 a till that had its final answer receives "not signed"')
        return s._replace(no_gen=put(s.no_gen, k, s.gens[k]))
    answer = ("rej",) if what == "rej" else ("yes", rc)
    if s.final[k] not in (None, answer):
        s = s._replace(bad="P2 another answer for the same key")
    if what == "rej":
        s = s._replace(no_gen=put(s.no_gen, k, s.gens[k]))
    elif s.sig[rc][1] != k:
        s = s._replace(bad="P6 the till gets the receipt of another sale")
    return s._replace(final=put(s.final, k, answer))


def idle(s: State) -> State:
    return s._replace(cur=-1, ph="i", ans=None)


def release(s: State, k: int) -> State:
    """Found unsigned: RECEIVED again, the number is free again, the till is told "no"."""
    return tell(idle(set_row(s, k, NEW._replace(st="R"))), k, "no")


def attach(s: State, k: int, i: int) -> State:
    row = s.store.rows[k]
    s = set_row(
        s,
        k,
        Row("G", row.no, row.att, row.gen, i, 0, 0),
        next=max(s.store.next, row.no + 1),
        last=i + 1,
    )
    return tell(idle(s), k, "yes", i)


def doubt(s: State, k: int, **flags) -> State:
    return set_row(s, k, s.store.rows[k]._replace(st="D", **flags))._replace(
        cur=k, ph="d", ans=None
    )


def mismatch(s: State, k: int, w: World) -> State:
    """The unit has a sale under a number that this store never used: signing hold, key quarantined."""
    s = idle(set_row(s, k, NEW._replace(st="R"), hold=(1, 0), quar=put(s.store.quar, k, 2)))
    return tell(s, k, "unk")


def known(s: State, i: int, k: int) -> bool:
    return any(r.rc == i for j, r in enumerate(s.store.rows) if j != k) or i + 1 <= s.store.last


def holding(s: State, no: int):
    return [i for i, e in enumerate(s.sig) if e[0] == no]

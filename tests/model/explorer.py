"""Explicit-state model of one gateway, its store, its tills and one control unit.

`successors` lists every step that the world can take from a state; `explore` visits all of them breadth
first, so the first trace to a violation is a shortest one. A state is a named tuple of plain values.
"Life" is one run of the control unit. "Sending" is one saveSales request that was put on the wire.
"""

from collections import deque

from tests.model.gateway import gateway_waits, look, till_asks
from tests.model.state import FOREIGN, State, World, holding, start_state
from tests.model.world import decisions, faults, restart, unit_handles


def successors(s: State, w: World):
    if s.up:
        for k in range(w.keys):
            yield from till_asks(s, k, w)
        if s.ph in "sq":
            yield from gateway_waits(s, w)
        elif s.ph == "d":
            yield from look(s, s.cur, w)
    else:
        yield from restart(s, w)
    yield from unit_handles(s, w)
    yield from faults(s, w)
    yield from decisions(s, w)


def violation(s: State, w: World) -> str:
    if s.bad:
        return s.bad
    before = 0
    seen = set()
    for no, key, gen in s.sig:
        if key == FOREIGN:
            continue
        if key in seen:
            return "P1 two receipts for one key"
        seen.add(key)
        if gen <= s.no_gen[key]:
            return 'P3 signed:"no" was sent, and the unit has the receipt'
        if no <= before:
            return "P5 invoice numbers do not rise"
        before = no
    return stuck(s, w)


def stuck(s: State, w: World) -> str:
    """P4: in doubt, nothing under way, the evidence is there, and no look ends it."""
    if not (s.up and s.ph == "d") or s.fl or s.store.hold is not None:
        return ""
    row = s.store.rows[s.cur]
    held = holding(s, row.no)
    signed = bool(held) and s.sig[held[0]][1:] == (s.cur, row.gen)
    unsigned = not held and w.host == "in" and not row.live
    if w.readback and (signed or unsigned) and not any(True for _ in look(s, s.cur, w)):
        return "P4 the evidence is there and the line stays blocked"
    if w.operator == "full" and s.ops and not (row.live and not w.bounded):
        if not any(True for _ in decisions(s, w)):
            return "P4 no operator decision is accepted"
    return ""


def explore(w: World, limit: int = 2_000_000, only: str = "", must: str = ""):
    """(states, steps, {property: (what, trace)}, complete). A violating state is not expanded. `only`: stop
    at this property. `must`: steps that the trace has to contain, | between, the last one last."""
    parent = {start_state(w): None}
    queue = deque(parent)
    steps, found, complete = 0, {}, True
    while queue:
        s = queue.popleft()
        for label, t in successors(s, w):
            steps += 1
            if t in parent:
                continue
            parent[t] = (s, label)
            wrong = violation(t, w)
            if wrong:
                if wrong[:2] not in found and contains(steps_to := trace(parent, t), must):
                    found[wrong[:2]] = (wrong, steps_to)
                    if only and wrong[:2] == only:
                        return len(parent), steps, found, False
                continue
            complete = complete and len(parent) < limit
            if complete:
                queue.append(t)
    return len(parent), steps, found, complete


def trace(parent, t):
    out = []
    while parent[t] is not None:
        t, label = parent[t]
        out.append(label)
    return out[::-1]


def contains(steps, must):
    return must.split("|")[-1] in steps[-1] and all(
        word in " ".join(steps) for word in must.split("|")
    )

"""Run the model: the rules as they were, the sound rules, and what each rule and assumption is needed for.

python -m tests.model.check          all parts, 2 processes, about a minute
python -m tests.model.check traces   the same, with every trace in full
python -m tests.model.check short    without the largest worlds of the sound rules, as CI runs it
"""

import sys
import time
from multiprocessing import Pool

from tests.model.explorer import explore
from tests.model.state import World

RULES = {
    "life": "at rest means: every sending of this sale was in an earlier life of the unit (stored per sending)",
    "token": "the restart of an external unit is seen (its start time), and ends its life as well",
    "other": "the read-back shows another sale under the number: no resend, signing hold, key quarantined",
    "dupfirst": "a duplicate code to the first sending of a fresh number: signing hold, key quarantined",
    "contra": "a decision that contradicts counter, read-back or a duplicate code is refused",
    "upload": "NOT_SIGNED and numbering only after contact with KRA later than the end of at_work_s",
    "rest": "NOT_SIGNED for a unit without a bound on its work only after a restart of the unit",
    "search": "the operator searches all receipts of the sale's day; third choice: another sale in its place",
    "skip": "a numbering decision that skips numbers quarantines claimed keys, with or without a hold",
    "id": "a receipt is attached by read-back only if an identity of this very sale matches",
    "fresh": "a receipt that is known here, or not above the last counter, is no answer to this sale",
    "bytes": "a refusal of a resend proves nothing about the first sending",
    "agree": "an equal counter proves that nothing is missing only when no sending can be under way",
    "count": "equal counter and unit at rest: found unsigned",
    "noticed": "a loss of the newest transactions is noticed at the start (commit count in a second place)",
    "drain": "after a loss, numbering is decided only when every till has sent what it has no answer for",
    "copyrow": "the open sale of a store that is a copy is never sent again; its key is quarantined",
}
ALL = frozenset(RULES) - {"token"}
# Second line and availability: sound with them and without them.
CORE = ALL - {"dupfirst", "skip", "count"}
LIFE = frozenset({"life"})
# Violations of today's rules. All but V1 with R1 removed, so that R1 does not hide them.
TODAY = [
    (
        "V1",
        "R1: a permission that was right at the start outlives the first sending",
        "P3",
        dict(readback=True),
    ),
    ("V2", "the resend reaches a unit that signs a repeated number again", "P1", dict(dup="again")),
    (
        "V2b",
        "the same where the unit looks for duplicates only when it accepts",
        "P1",
        dict(dup="racy"),
    ),
    (
        "V3",
        "a refusal of the resend is taken for proof about the first sending",
        "P3",
        dict(dup="bytes"),
    ),
    ("V4", "NOT_SIGNED before the receipt reached the portal", "P3", dict(operator="late")),
    (
        "V5",
        "NOT_SIGNED, and the unit is slower than at_work_s",
        "P3",
        dict(operator="full", bounded=False),
    ),
    (
        "V6",
        "NOT_SIGNED is accepted although the counter moved",
        "P3",
        dict(operator="careless", counter=True),
    ),
    (
        "V7",
        "loss not noticed: numbering without a hold (R4)",
        "P1",
        dict(operator="full", loss="lied", ops=2),
    ),
    (
        "V7b",
        "loss not noticed: the operator looks under the number only (R4)",
        "P3",
        dict(
            operator="number",
            loss="lied",
            keys=2,
            gmax=2,
            must="sale 0 as invcNo 2|NOT_SIGNED for sale 0",
            also="upload",
        ),
    ),
    (
        "V8",
        'loss not noticed: signed:"no" for a signed sale',
        "P3",
        dict(keys=2, loss="lied", gmax=2),
    ),
    (
        "V9",
        "restore: the open sale of the copy is sent again",
        "P3",
        dict(operator="full", loss="restore", ops=2),
    ),
    (
        "V10",
        "restore: an equal counter ends the hold, then as V9",
        "P3",
        dict(operator="full", loss="restore", counter=True),
    ),
    (
        "V11",
        "ext: as V10 while a sending is under way",
        "P3",
        dict(host="ext", loss="restore", counter=True, keys=2, gmax=1),
    ),
    (
        "V12",
        "a look-alike receipt is attached (R5)",
        "P6",
        dict(readback=True, writer=1, alike=True),
    ),
    (
        "V13",
        "the read-back shows another sale, the resend goes out all the same",
        "P6",
        dict(readback=True, dup="replay", writer=1, must="although|receipt, 201"),
    ),
    (
        "V14",
        "replay unit: a foreign receipt at the first sending",
        "P6",
        dict(dup="replay", writer=1),
    ),
    ("V15", "the unit answers with the receipt before it (R6)", "P6", dict(keys=2, stale=True)),
    (
        "V16",
        "a key that first comes after the decision (documented)",
        "P1",
        dict(operator="full", loss="restore"),
    ),
    ("V17", "careless operator, no evidence source", "P3", dict(operator="careless")),
    (
        "V18",
        'a "not ready" code (836, 891, 892, E11) after the unit signed',
        "P3",
        dict(after="nr"),
    ),
    ("V19", "a refusal code after the unit signed", "P3", dict(after="ref")),
]
# Rule and the violation that comes back without it (or property and world).
NEEDED = {
    "life": "V1",
    "other": "V13",
    "contra": "V6",
    "upload": "V4",
    "rest": "V5",
    "id": "V12",
    "fresh": "V15",
    "bytes": "V3",
    "agree": "V11",
    "drain": "V16",
    "copyrow": "V9",
    "noticed": ("P3", dict(operator="full", loss="lied", ops=2)),
    "search": ("P4", dict(operator="full", counter=True, writer=1, ops=2)),
}
# Assumptions: all sound rules in force (but one, where named), in a world that breaks the assumption.
ASSUMED = [
    (
        "A1 guard: the unit never signs a number twice, decided when it signs (else: resend off)",
        "V2",
        "",
    ),
    ("A2 one writer: nothing else signs with a unit that repeats stored answers", "V14", ""),
    (
        "A3 forgets: a restarted unit does not sign what it had only accepted",
        ("P3", dict(readback=True, remembers=True)),
        "",
    ),
    ("A4 final codes: a refusal or not-ready code is given before anything is signed", "V18", ""),
    ("A5 bound: an accepted request ends within at_work_s (else: rule rest)", "V5", "rest"),
    ("A6 operator: honest where neither counter nor read-back can contradict", "V17", ""),
    (
        "A7 tills: after a loss each sends what it has no answer for before the decision",
        "V16",
        "drain",
    ),
]


def sound_worlds(rules):
    for host in ("in", "ext"):
        for readback in (False, True):
            for counter in (False, True):
                ev = dict(host=host, readback=readback, counter=counter, rules=rules)
                for dup in ("code", "replay", "generic", "bytes", "again", "racy"):
                    yield World(
                        name="repeated number",
                        dup=dup,
                        resend=dup not in ("again", "racy"),
                        crash=2,
                        keys=2,
                        gmax=2,
                        link=True,
                        **ev,
                    )
                operators = ("full", "late", "number") + (
                    ("careless",) if readback or counter else ()
                )
                for operator in operators:
                    for bounded in (True, False):
                        yield World(
                            name="operator",
                            operator=operator,
                            bounded=bounded,
                            crash=2,
                            ops=2,
                            ucrash=1 if host == "ext" else 0,
                            **ev,
                        )
                    yield World(
                        name="operator, two tills",
                        operator=operator,
                        crash=1,
                        ops=1,
                        keys=2,
                        gmax=2,
                        **ev,
                    )
                for dup in ("code", "generic"):
                    yield World(
                        name="second writer", dup=dup, writer=1, operator="full", ops=2, **ev
                    )
                    yield World(name="second writer, alike", dup=dup, writer=1, alike=True, **ev)
                for loss in ("lied", "restore"):
                    for operator in ("full", "late", "number"):
                        yield World(name="loss", loss=loss, operator=operator, ops=2, **ev)
                    yield World(
                        name="loss, two tills", loss=loss, operator="full", keys=2, gmax=1, **ev
                    )
                yield World(name="repeated answer", stale=True, keys=2, gmax=2, **ev)
                yield World(name="refused sale", refused=True, crash=2, link=True, **ev)
    yield World(name="restart seen", host="ext", readback=True, ucrash=2, rules=rules | {"token"})


def run(job):
    kind, name, text, prop, w, must = job
    return kind, name, text, prop, w, *explore(w, limit=600_000, only=prop, must=must)


def is_large(w):
    return w.keys > 1


def jobs(short=False):
    for name, text, prop, world in TODAY:
        rules = frozenset() if name == "V1" else LIFE | {world.get("also", "life")}
        yield job("today", name, text, prop, world, rules)
    for rules, title in ((CORE, " (core)"),) if short else ((ALL, ""), (CORE, " (core)")):
        for w in sound_worlds(rules):
            if short and is_large(w):
                continue
            yield "sound", w.name + title, "", "", w, ""
    cases = {name: (prop, world) for name, _, prop, world in TODAY}
    for rule, case in NEEDED.items():
        yield job(
            "needed",
            rule,
            RULES[rule],
            *(cases[case] if isinstance(case, str) else case),
            CORE - {rule},
        )
    for text, case, without in ASSUMED:
        yield job(
            "assumed",
            *text.split(": ", 1),
            *(cases[case] if isinstance(case, str) else case),
            ALL - {without},
        )


def job(kind, name, text, prop, world, rules):
    settings = {k: v for k, v in world.items() if k not in ("must", "also")}
    return kind, name, text, prop, World(rules=rules, **settings), world.get("must", "")


def show(found, prop, full):
    what, steps = found[prop]
    print(f"      {what}; shortest trace {len(steps)} steps")
    if full:
        for i, step in enumerate(steps, 1):
            print(f"        {i}. {step}")


def main() -> int:
    full = "traces" in sys.argv
    began, wrong, sums, head = time.monotonic(), 0, {}, ""
    heads = {
        "today": "THE RULES AS THEY WERE (V1 with all of them, the others with R1 removed)",
        "sound": "",
        "needed": "EACH RULE IS NEEDED: the sound rules without it",
        "assumed": "EACH ASSUMPTION IS NEEDED: the sound rules where it does not hold",
    }
    order = list(jobs("short" in sys.argv))
    with Pool(2) as pool:
        for kind, name, text, prop, w, states, steps, found, complete in pool.imap(run, order, 2):
            if heads[kind] and head != kind:
                print("\n" + heads[kind])
            head = kind
            if kind == "sound":
                total = sums.setdefault(name, [0, 0, 0, 0])
                for i, n in enumerate((1, states, steps, len(found) + (not complete))):
                    total[i] += n
                for broken in found:
                    print("NOT SOUND:", w)
                    show(found, broken, True)
            else:
                print(f"  {name}: {text}  [{states} states]")
                if prop in found:
                    show(found, prop, full)
                else:
                    print(f"      no violation of {prop} found")
                    wrong += 1
    print("\nSOUND RULES: P1 to P6, every unit mode and evidence setting")
    for name, (worlds, states, steps, broken) in sums.items():
        wrong += broken
        result = "violated" if broken else "holds"
        print(f"  {name:30} {worlds:4} worlds {states:9} states {steps:9} steps  {result}")
    everything = [sum(t[i] for t in sums.values()) for i in range(3)]
    print(
        f"  {'together':30} {everything[0]:4} worlds {everything[1]:9} states {everything[2]:9} steps"
    )
    print(f"\n{time.monotonic() - began:.0f} s; {wrong} unexpected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

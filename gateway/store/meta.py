"""Small facts about this installation, by name."""

from __future__ import annotations

import sqlite3

# Set in a restored store until it is settled what it lacks; the value is the copy's age (micros).
RESTORED = "store.restored"
# Beside it when the unit's folder was put back as well: then the unit's word for it proves nothing.
UNIT_RESTORED = "store.restored_unit"
# Why signing is held, as JSON (fiscal/ahead.py).
HOLD = "unit.ahead"
# Which store this is, for the marker in the unit's folder; a restored copy is a new one.
STORE_ID = "store.id"
# The id of another store, whose place this one has taken by a person's word.
TOOK_OVER = "store.took_over"
# The next invoice number that a person gave, who has so accounted for the unit's receipts before it: the
# first receipt from that number on may have any counter above ours.
COUNTER_OPEN = "unit.counter_open"
# The unit's receipt counter at the last numbering decision, where it could be read.
COUNTER_ACCOUNTED = "unit.counter_accounted"

# Changes of tax rates that no person has seen yet, as JSON (fiscal/rates.py).
RATE_CHANGES = "unit.rate_changes"
# The unit's ids by the settings, used while the unit itself gives none.
SDC_ID_SET = "unit.sdc_id_set"
MRC_NO_SET = "unit.mrc_no_set"
# How this store is known to its witness (witness.py), and the state of another witness that is settled.
WITNESS_ID = "store.witness"
WITNESS_TAKEN = "store.witness_taken"
# How it was noticed at the start that the newest transactions are lost; until an operator has decided.
NOTICED = "store.noticed"
# Rows of `invoice` above this one carry digests.
DIGESTS_AFTER = "store.digests_after"
# Not empty while a gateway runs, and after an unclean stop (fiscal/startup.py).
RUNNING = "running"


def get(conn: sqlite3.Connection, key: str) -> str | None:
    row = conn.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def put(conn: sqlite3.Connection, key: str, value: str) -> None:
    conn.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def remove(conn: sqlite3.Connection, key: str) -> None:
    conn.execute("DELETE FROM meta WHERE key = ?", (key,))

-- KRA's lists as the unit last served them, and what waits to be registered with KRA.

-- Where each list stands: `watermark` is KRA's (yyyymmddhhmmss) and moves only in the transaction that
-- stores the rows it stands for (VSCU spec 2.2, point 3).
CREATE TABLE reference_list (
    name         TEXT PRIMARY KEY,
    watermark    TEXT    NOT NULL CHECK (length(watermark) = 14),
    refreshed_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE reference (
    list       TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (list, key)
) STRICT, WITHOUT ROWID;

-- Items and stock moves on their way to the unit, in order, each exactly as it goes on the wire. Sent
-- again until answered, so only what KRA takes twice without harm belongs here.
CREATE TABLE registration (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE CHECK (length(id) = 26),
    till_id    TEXT    NOT NULL,
    idem_key   TEXT    NOT NULL CHECK (idem_key <> ''),
    digest     TEXT    NOT NULL CHECK (length(digest) = 64),
    kind       TEXT    NOT NULL CHECK (kind IN ('saveItems', 'saveStockItems', 'saveStockMaster')),
    subject    TEXT    NOT NULL,
    body       BLOB    NOT NULL,
    state      TEXT    NOT NULL DEFAULT 'WAITING' CHECK (state IN ('WAITING', 'DONE', 'REFUSED')),
    reason     TEXT,
    attempts   INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    settled_at INTEGER,
    UNIQUE (till_id, idem_key)
) STRICT;
CREATE INDEX registration_waiting ON registration (seq) WHERE state = 'WAITING';
CREATE INDEX registration_by_subject ON registration (kind, subject);

-- The day's closes (TIS 16.1). Each takes every receipt up to `last_receipt` that no earlier one took, so
-- none is in two and none between two, whatever was done to the clock. CLOSING until the unit was told,
-- where that is switched on; a start goes on with what it finds so.
CREATE TABLE z_report (
    number       INTEGER PRIMARY KEY CHECK (number > 0),
    day          TEXT    NOT NULL UNIQUE CHECK (length(day) = 10),
    began_at     INTEGER NOT NULL,
    ended_at     INTEGER NOT NULL CHECK (ended_at >= began_at),
    last_receipt INTEGER NOT NULL,
    last_invoice INTEGER NOT NULL,
    last_job     INTEGER NOT NULL,
    body         TEXT    NOT NULL,
    how          TEXT    NOT NULL CHECK (how IN ('PERSON', 'MIDNIGHT', 'LATE')),
    state        TEXT    NOT NULL CHECK (state IN ('CLOSING', 'DONE')),
    unit_says    TEXT,
    made_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX receipt_by_scu_time ON receipt (scu_time);
CREATE TRIGGER z_report_stays BEFORE UPDATE OF number, day, began_at, ended_at, last_receipt, last_invoice, last_job, body ON z_report
BEGIN SELECT RAISE(ABORT, 'a Z report is never changed'); END;
CREATE TRIGGER z_report_is_kept BEFORE DELETE ON z_report
BEGIN SELECT RAISE(ABORT, 'a Z report is never deleted'); END;

-- Slips of tills that only know how to print, as they came. UNREAD ones wait for a person. What the slip
-- says of itself (number, day, total, a digest of its items) tells a reprint from another sale; idem_key
-- is the key it is sold under. taken: a person has begun to sell it, so no reprint may.
CREATE TABLE captured_slip (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    device      TEXT    NOT NULL,
    till_id     TEXT    NOT NULL,
    raw         BLOB    NOT NULL,
    text        TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('WAITING', 'SIGNED', 'NOT_A_SALE', 'UNREAD', 'DISMISSED')),
    reason      TEXT,
    receipt_no  TEXT,
    dated       TEXT,
    total_cents INTEGER,
    content     TEXT,
    idem_key    TEXT,
    reprint     INTEGER NOT NULL DEFAULT 0 CHECK (reprint IN (0, 1)),
    taken       INTEGER NOT NULL DEFAULT 0 CHECK (taken IN (0, 1)),
    invoice_id  TEXT    REFERENCES invoice (id),
    at          INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX captured_slip_open ON captured_slip (id) WHERE state IN ('WAITING', 'UNREAD');
CREATE INDEX captured_slip_by_number ON captured_slip (till_id, receipt_no) WHERE receipt_no IS NOT NULL;

-- The first schema: invoices and their receipts, the print queue, the outbox, the ceiling's stopwatch.
-- Instants are integer UTC microseconds, money integer cents, hashes lower-case hex.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- One row per sale a till submitted. UNIQUE (till_id, idem_key) is the lock that makes one sale of
-- two requests: the INSERT decides, nothing is asked first.
CREATE TABLE invoice (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    id               TEXT    NOT NULL UNIQUE CHECK (length(id) = 26),
    till_id          TEXT    NOT NULL CHECK (till_id <> ''),
    idem_key         TEXT    NOT NULL CHECK (idem_key <> ''),
    body_digest      TEXT    NOT NULL CHECK (length(body_digest) = 64),
    label            TEXT    NOT NULL CHECK (label IN ('NS', 'NC', 'TS', 'TC', 'PS')),
    original_id      TEXT    REFERENCES invoice (id),
    till_receipt_no  TEXT    NOT NULL,
    total_cents      INTEGER NOT NULL CHECK (total_cents >= 0),
    request          BLOB    NOT NULL,
    document         BLOB    NOT NULL,
    printer          TEXT,
    state            TEXT    NOT NULL DEFAULT 'RECEIVED'
                     CHECK (state IN ('RECEIVED', 'SIGNING', 'SIGNED', 'REJECTED', 'IN_DOUBT')),
    invc_no          INTEGER UNIQUE CHECK (invc_no > 0),
    unit_request     BLOB,
    unit_answer      BLOB,
    attempts         INTEGER NOT NULL DEFAULT 0,
    answer_status    INTEGER,
    answer           BLOB,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    UNIQUE (till_id, idem_key),
    CHECK (state NOT IN ('SIGNING', 'SIGNED', 'IN_DOUBT')
           OR (invc_no IS NOT NULL AND unit_request IS NOT NULL)),
    CHECK (state NOT IN ('SIGNED', 'REJECTED')
           OR (answer IS NOT NULL AND answer_status IS NOT NULL)),
    CHECK (state NOT IN ('RECEIVED', 'REJECTED') OR invc_no IS NULL)
) STRICT;

-- Never sign the next sale over one whose outcome is open: at most one row in flight or in doubt,
-- whatever the code does. The index must cover IN_DOUBT too.
CREATE UNIQUE INDEX invoice_one_open ON invoice ((1)) WHERE state IN ('SIGNING', 'IN_DOUBT');
CREATE INDEX invoice_by_state ON invoice (state) WHERE state IN ('RECEIVED', 'SIGNING', 'IN_DOUBT');
-- One cancellation per original (TIS 6.16): an attempt that never reached the unit does not count.
CREATE UNIQUE INDEX invoice_one_credit ON invoice (original_id)
    WHERE original_id IS NOT NULL AND state IN ('SIGNING', 'IN_DOUBT', 'SIGNED');

CREATE TRIGGER invoice_starts_received BEFORE INSERT ON invoice
WHEN NEW.state <> 'RECEIVED'
BEGIN SELECT RAISE(ABORT, 'an invoice starts as RECEIVED'); END;

CREATE TRIGGER invoice_moves BEFORE UPDATE OF state ON invoice
WHEN OLD.state <> NEW.state AND (OLD.state || '>' || NEW.state) NOT IN (
    'RECEIVED>SIGNING', 'SIGNING>SIGNED', 'SIGNING>REJECTED', 'SIGNING>IN_DOUBT',
    'IN_DOUBT>SIGNED', 'IN_DOUBT>RECEIVED')
BEGIN SELECT RAISE(ABORT, 'no such move of an invoice'); END;

CREATE TRIGGER invoice_is_what_was_sent BEFORE UPDATE OF
    id, till_id, idem_key, body_digest, label, original_id, till_receipt_no, total_cents, request,
    document, created_at ON invoice
BEGIN SELECT RAISE(ABORT, 'what a till sent is never changed'); END;

CREATE TRIGGER invoice_final BEFORE UPDATE ON invoice
WHEN OLD.state IN ('SIGNED', 'REJECTED')
BEGIN SELECT RAISE(ABORT, 'a settled invoice is never changed'); END;

CREATE TRIGGER invoice_bytes_stay BEFORE UPDATE OF invc_no, unit_request ON invoice
WHEN OLD.state IN ('SIGNING', 'IN_DOUBT') AND NEW.state IN ('SIGNING', 'IN_DOUBT', 'SIGNED')
     AND (OLD.invc_no IS NOT NEW.invc_no OR OLD.unit_request IS NOT NEW.unit_request)
BEGIN SELECT RAISE(ABORT, 'number and bytes stay once they may be on the wire'); END;

CREATE TRIGGER invoice_stays BEFORE DELETE ON invoice
BEGIN SELECT RAISE(ABORT, 'an invoice is never deleted'); END;

-- Tills that send no key: the same till, receipt number and body within a window are one sale. The
-- upsert decides, in the transaction of the claim.
CREATE TABLE keyless (
    till_id     TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL CHECK (length(fingerprint) = 64),
    invoice_id  TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    PRIMARY KEY (till_id, fingerprint)
) STRICT, WITHOUT ROWID;
CREATE INDEX keyless_by_age ON keyless (at);

-- What the unit returned, once per signed invoice, chained by hash in the order of signing.
CREATE TABLE receipt (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    invoice_id  TEXT    NOT NULL UNIQUE REFERENCES invoice (id),
    label       TEXT    NOT NULL,
    invc_no     INTEGER NOT NULL UNIQUE,
    rcpt_no     INTEGER NOT NULL,
    tot_rcpt_no INTEGER NOT NULL,
    sdc_id      TEXT    NOT NULL,
    mrc_no      TEXT,
    intrl_data  TEXT    NOT NULL,
    rcpt_sign   TEXT    NOT NULL,
    scu_time    TEXT    NOT NULL CHECK (length(scu_time) = 14),
    total_cents INTEGER NOT NULL,
    how         TEXT    NOT NULL CHECK (how IN ('ANSWER', 'RECOVERED', 'PERSON')),
    signed_at   INTEGER NOT NULL,
    previous    TEXT    NOT NULL CHECK (length(previous) = 64),
    hash        TEXT    NOT NULL UNIQUE CHECK (length(hash) = 64)
) STRICT;
CREATE INDEX receipt_by_number ON receipt (sdc_id, tot_rcpt_no);
CREATE INDEX receipt_by_sign ON receipt (rcpt_sign);
CREATE INDEX receipt_by_time ON receipt (signed_at);

CREATE TRIGGER receipt_stays BEFORE UPDATE ON receipt
BEGIN SELECT RAISE(ABORT, 'a receipt is never changed'); END;
CREATE TRIGGER receipt_is_kept BEFORE DELETE ON receipt
BEGIN SELECT RAISE(ABORT, 'a receipt is never deleted'); END;

-- The unit's numbering as this gateway knows it. `next_invc_no` moves when a number is used up:
-- signed, or given up because nobody can say whether the unit holds it.
CREATE TABLE unit (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    next_invc_no  INTEGER NOT NULL CHECK (next_invc_no > 0),
    last_stamp    INTEGER NOT NULL DEFAULT 0,
    sdc_id        TEXT,
    mrc_no        TEXT,
    info          BLOB,
    rates         BLOB,
    updated_at    INTEGER NOT NULL
) STRICT;

CREATE TRIGGER unit_numbers_rise BEFORE UPDATE OF next_invc_no ON unit
WHEN NEW.next_invc_no < OLD.next_invc_no
BEGIN SELECT RAISE(ABORT, 'invoice numbers only rise'); END;

-- Everything that happened, in order; the story of an invoice and the tills' event stream.
CREATE TABLE event (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    subject TEXT,
    till_id TEXT,
    data    TEXT    NOT NULL
) STRICT;
CREATE INDEX event_by_subject ON event (subject, id) WHERE subject IS NOT NULL;

CREATE TRIGGER event_stays BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'an event is never changed'); END;

-- The durable print queue.
CREATE TABLE print_job (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    invoice_id  TEXT    REFERENCES invoice (id),
    printer     TEXT    NOT NULL,
    -- The printer it was for, when another one prints it.
    meant_for   TEXT,
    kind        TEXT    NOT NULL CHECK (kind IN ('ORIGINAL', 'COPY', 'NOTE', 'REPORT')),
    copy_no     INTEGER NOT NULL DEFAULT 0,
    body        BLOB,
    -- HELD: too old to come out unasked. A released one is not held again.
    state       TEXT    NOT NULL DEFAULT 'QUEUED'
                CHECK (state IN ('QUEUED', 'SENDING', 'PRINTED', 'UNCONFIRMED', 'BLOCKED', 'HELD', 'DROPPED')),
    released    INTEGER NOT NULL DEFAULT 0,
    reason      TEXT,
    attempts    INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX print_job_waiting ON print_job (printer, id)
    WHERE state IN ('QUEUED', 'SENDING', 'BLOCKED', 'HELD', 'UNCONFIRMED');
-- One original per sale (TIS 6.17), whatever the printer did.
CREATE UNIQUE INDEX print_job_one_original ON print_job (invoice_id) WHERE kind = 'ORIGINAL';

-- What the cloud must still get, exactly what was signed, in order. `seq` has no gaps.
CREATE TABLE outbox (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_id  TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    payload     BLOB    NOT NULL,
    sha256      TEXT    NOT NULL CHECK (length(sha256) = 64),
    state       TEXT    NOT NULL DEFAULT 'WAITING' CHECK (state IN ('WAITING', 'STORED', 'PARKED')),
    reason      TEXT,
    attempts    INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    stored_at   INTEGER,
    UNIQUE (kind, subject_id)
) STRICT;
CREATE INDEX outbox_waiting ON outbox (seq) WHERE state = 'WAITING';
CREATE INDEX outbox_parked ON outbox (seq) WHERE state = 'PARKED';

-- The ceiling's stopwatches and the wall clock's high-water mark, so that neither a reboot nor a
-- wrong clock gives hours back. Ages are as of the checkpoint, in microseconds.
CREATE TABLE continuity (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    boot_id         TEXT    NOT NULL,
    boottime_ns     INTEGER NOT NULL,
    wall_us         INTEGER NOT NULL,
    high_water_us   INTEGER NOT NULL,
    contact_age_us  INTEGER,
    unsent_age_us   INTEGER,
    contact_at      INTEGER,
    kra_time        TEXT,
    kra_us          INTEGER,
    counted_us      INTEGER
) STRICT;

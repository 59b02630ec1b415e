-- What the field does to a shop: what is recorded of each sending, so that evidence can be weighed.

-- The run of the control unit that the last sending of a sale went to (NULL: an external unit, whose
-- restarts are not seen), when that was by CLOCK_BOOTTIME, and whether a resend was called a duplicate.
ALTER TABLE invoice ADD COLUMN unit_life TEXT;
ALTER TABLE invoice ADD COLUMN last_sent_boot_id TEXT;
ALTER TABLE invoice ADD COLUMN last_sent_boot_ns INTEGER;
ALTER TABLE invoice ADD COLUMN duplicate_seen INTEGER NOT NULL DEFAULT 0 CHECK (duplicate_seen IN (0, 1));
-- 1: the unit answered with trouble on its path to KRA, so the one resend is kept until KRA answers.
ALTER TABLE invoice ADD COLUMN link_trouble INTEGER NOT NULL DEFAULT 0 CHECK (link_trouble IN (0, 1));

-- A receipt belongs to one sale. Triggers instead of UNIQUE indexes, because an old store that already
-- holds a duplicate must still open.
CREATE TRIGGER receipt_number_is_new BEFORE INSERT ON receipt
WHEN EXISTS (SELECT 1 FROM receipt WHERE sdc_id = NEW.sdc_id AND tot_rcpt_no = NEW.tot_rcpt_no)
BEGIN SELECT RAISE(ABORT, 'another sale has this receipt number'); END;
CREATE TRIGGER receipt_signature_is_new BEFORE INSERT ON receipt
WHEN EXISTS (SELECT 1 FROM receipt WHERE rcpt_sign = NEW.rcpt_sign)
BEGIN SELECT RAISE(ABORT, 'another sale has this signature'); END;

-- What M-Pesa showed of a payment that it announced (C2B, Pull): the payer's number whole, masked or as a SHA-256,
-- the kind of payment, and M-Pesa's own time (NULL: it gave none). Tells a push and an announcement apart.
CREATE TABLE payment_shown (
    payment_id TEXT    PRIMARY KEY REFERENCES payment (id),
    payer      TEXT,
    kind       TEXT    NOT NULL DEFAULT '',
    paid_at    INTEGER
) STRICT, WITHOUT ROWID;
-- A person has decided that a paid push and an announced payment are two payments.
CREATE TABLE payment_apart (
    push_id TEXT    NOT NULL REFERENCES payment (id),
    c2b_id  TEXT    NOT NULL REFERENCES payment (id),
    who     TEXT    NOT NULL,
    reason  TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (push_id, c2b_id)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER payment_apart_stays BEFORE DELETE ON payment_apart
BEGIN SELECT RAISE(ABORT, 'a decision is never deleted'); END;
CREATE INDEX payment_receipt_to_follow ON payment (sent_at)
    WHERE kind = 'STK' AND receipt IS NULL AND merged_into IS NULL AND money IN ('PAID', 'REFUNDED');
CREATE INDEX payment_c2b_by_time ON payment (paid_at) WHERE kind = 'C2B' AND merged_into IS NULL;
-- Rows of M-Pesa's list that are no customer's payment (settlements, payouts, reversals): shown, never counted.
CREATE TABLE pulled_row (
    receipt TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    cents   INTEGER NOT NULL,
    paid_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (receipt, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX pulled_row_by_time ON pulled_row (paid_at);
-- M-Pesa reports that a customer's payment was taken back. Open until a person has decided. `payment_id` NULL: of
-- no payment that is known here.
CREATE TABLE payment_reversal (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    receipt    TEXT    NOT NULL UNIQUE,
    payment_id TEXT    REFERENCES payment (id),
    source     TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    settled_at INTEGER,
    went_back  INTEGER CHECK (went_back IN (0, 1)),
    who        TEXT,
    reason     TEXT,
    CHECK (settled_at IS NULL OR who IS NOT NULL)
) STRICT;
CREATE INDEX payment_reversal_open ON payment_reversal (payment_id) WHERE settled_at IS NULL;
CREATE TRIGGER payment_reversal_stays BEFORE DELETE ON payment_reversal
BEGIN SELECT RAISE(ABORT, 'a reversal is never deleted'); END;
-- QR codes that were shown to customers: what a payment names as its reference, and the sale it is for.
CREATE TABLE payment_qr (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    reference    TEXT    NOT NULL,
    till_id      TEXT    NOT NULL,
    sale_ref     TEXT    NOT NULL,
    amount_cents INTEGER NOT NULL,
    at           INTEGER NOT NULL
) STRICT;
CREATE INDEX payment_qr_by_reference ON payment_qr (reference, at);

-- Digests of what a row claims and of its present state (gateway/store/digests.py). NULL in rows of an
-- older version.
ALTER TABLE invoice ADD COLUMN claim_digest BLOB;
ALTER TABLE invoice ADD COLUMN outcome_digest BLOB;
INSERT INTO meta (key, value) SELECT 'store.digests_after', COALESCE(MAX(seq), 0) FROM invoice;

-- How many transactions of this store were made durable; the witness knows it, too.
ALTER TABLE unit ADD COLUMN commits INTEGER NOT NULL DEFAULT 0;

-- Keys that were claimed and are lost, as the witness knows them: by digest only.
CREATE TABLE lost_key (
    digest  BLOB    PRIMARY KEY,
    settled INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER invoice_claim_digest_stays BEFORE UPDATE OF claim_digest ON invoice
BEGIN SELECT RAISE(ABORT, 'what a till sent is never changed'); END;

CREATE TRIGGER lost_key_stays BEFORE DELETE ON lost_key WHEN OLD.settled = 1
BEGIN SELECT RAISE(ABORT, 'a key that may have been signed stays so'); END;
CREATE TRIGGER lost_key_settled_stays BEFORE UPDATE ON lost_key WHEN OLD.settled = 1
BEGIN SELECT RAISE(ABORT, 'a key that may have been signed stays so'); END;

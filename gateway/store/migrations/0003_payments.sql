-- Payments by M-Pesa: two truths in one row (money and tender), every word about it beside it, and the
-- sales that wait for their money. Phone numbers are 2547.. or 2541.., money integer cents.

-- A sale that is paid, in part or whole, through M-Pesa and signed when the money is there. READY: all
-- of it has come; from here on it is signed under the till's own key, whatever crashes.
CREATE TABLE checkout (
    id          TEXT    PRIMARY KEY CHECK (length(id) = 26),
    till_id     TEXT    NOT NULL,
    idem_key    TEXT    NOT NULL CHECK (idem_key <> ''),
    body_digest TEXT    NOT NULL CHECK (length(body_digest) = 64),
    request     BLOB    NOT NULL,
    -- The valid invoice as it was when the money was asked for: rates may change meanwhile.
    document    BLOB    NOT NULL,
    sale_ref    TEXT    NOT NULL,
    total_cents INTEGER NOT NULL CHECK (total_cents >= 0),
    printer     TEXT,
    state       TEXT    NOT NULL DEFAULT 'COLLECTING'
                CHECK (state IN ('COLLECTING', 'READY', 'SIGNED', 'CLOSED')),
    reason      TEXT,
    -- READY: until then it is signed without anybody asking; then a person decides.
    sign_until  INTEGER,
    invoice_id  TEXT    REFERENCES invoice (id),
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    UNIQUE (till_id, idem_key),
    CHECK (state <> 'SIGNED' OR invoice_id IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX checkout_open ON checkout (created_at) WHERE state IN ('COLLECTING', 'READY');
CREATE TRIGGER checkout_moves BEFORE UPDATE OF state ON checkout
WHEN OLD.state <> NEW.state AND (OLD.state || '>' || NEW.state) NOT IN (
    'COLLECTING>READY', 'COLLECTING>CLOSED', 'READY>SIGNED', 'READY>CLOSED')
BEGIN SELECT RAISE(ABORT, 'no such move of a checkout'); END;
CREATE TRIGGER checkout_is_what_was_sent BEFORE UPDATE OF
    id, till_id, idem_key, body_digest, request, document, sale_ref, total_cents, created_at ON checkout
BEGIN SELECT RAISE(ABORT, 'what a till sent is never changed'); END;
CREATE TRIGGER checkout_stays BEFORE DELETE ON checkout
BEGIN SELECT RAISE(ABORT, 'a checkout is never deleted'); END;

-- One attempt to be paid (STK), or money that came by itself (C2B). Written before the first byte of the
-- push. `token_hash` is of the unguessable part of its callback address; the token itself is not kept.
CREATE TABLE payment (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE CHECK (length(id) = 26),
    kind         TEXT    NOT NULL CHECK (kind IN ('STK', 'C2B')),
    till_id      TEXT,
    idem_key     TEXT,
    body_digest  TEXT,
    checkout_id  TEXT    REFERENCES checkout (id),
    -- The till's own number of the sale; a C2B payment has none until somebody claims it.
    sale_ref     TEXT,
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    phone        TEXT,
    account_ref  TEXT,
    token_hash   TEXT    UNIQUE CHECK (length(token_hash) = 64),
    money        TEXT    NOT NULL CHECK (money IN ('NEW', 'SENDING', 'REFUSED', 'SEND_UNKNOWN', 'WAITING',
                                                   'PAID', 'NOT_PAID', 'UNKNOWN', 'REFUNDED')),
    reason       TEXT,
    tender       TEXT    NOT NULL DEFAULT 'OPEN'
                 CHECK (tender IN ('OPEN', 'COMPLETED_BY_MPESA', 'COMPLETED_OTHERWISE', 'ABANDONED',
                                   'REVIEW', 'REFUND_DUE', 'REFUNDED', 'MERGED')),
    merchant_request_id TEXT,
    checkout_request_id TEXT UNIQUE,
    receipt      TEXT,
    paid_cents   INTEGER,
    paid_by      TEXT,
    paid_at      INTEGER,
    payer        TEXT,
    merged_into  TEXT    REFERENCES payment (id),
    invoice_id   TEXT    REFERENCES invoice (id),
    sent_at      INTEGER,
    -- When it is looked at next, by query or reconciliation; NULL: never again by itself.
    next_check_at INTEGER,
    checks       INTEGER NOT NULL DEFAULT 0,
    -- A code that counts only when it is heard twice, and when it was heard first (daraja.md 4.1).
    soft_code    TEXT,
    soft_at      INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    version      INTEGER NOT NULL DEFAULT 1,
    UNIQUE (till_id, idem_key),
    CHECK (kind = 'C2B' OR (till_id IS NOT NULL AND phone IS NOT NULL AND token_hash IS NOT NULL)),
    CHECK (kind = 'STK' OR receipt IS NOT NULL),
    CHECK (money NOT IN ('PAID', 'REFUNDED') OR paid_by IS NOT NULL),
    CHECK ((tender = 'MERGED') = (merged_into IS NOT NULL)),
    CHECK (tender <> 'COMPLETED_BY_MPESA' OR (money IN ('PAID', 'REFUNDED') AND invoice_id IS NOT NULL)),
    CHECK (tender NOT IN ('REVIEW', 'REFUND_DUE', 'REFUNDED', 'MERGED') OR money IN ('PAID', 'REFUNDED'))
) STRICT;
-- A receipt is one payment's; its twin that came another way points to it.
CREATE UNIQUE INDEX payment_one_receipt ON payment (receipt)
    WHERE receipt IS NOT NULL AND merged_into IS NULL;
-- One prompt per phone and per sale at a time, whatever the code does.
CREATE UNIQUE INDEX payment_one_push_per_phone ON payment (phone)
    WHERE kind = 'STK' AND money IN ('NEW', 'SENDING', 'SEND_UNKNOWN', 'WAITING');
CREATE UNIQUE INDEX payment_one_push_per_sale ON payment (till_id, sale_ref)
    WHERE kind = 'STK' AND sale_ref IS NOT NULL AND money IN ('NEW', 'SENDING', 'SEND_UNKNOWN', 'WAITING');
-- What a paybill's customer and M-Pesa's messages show of an attempt.
CREATE UNIQUE INDEX payment_one_reference ON payment (account_ref) WHERE kind = 'STK';
CREATE INDEX payment_by_check ON payment (next_check_at) WHERE next_check_at IS NOT NULL;
CREATE INDEX payment_by_sale ON payment (till_id, sale_ref) WHERE sale_ref IS NOT NULL;
CREATE INDEX payment_by_checkout ON payment (checkout_id) WHERE checkout_id IS NOT NULL;
CREATE INDEX payment_by_invoice ON payment (invoice_id) WHERE invoice_id IS NOT NULL;
CREATE INDEX payment_by_time ON payment (created_at);
CREATE INDEX payment_loose ON payment (till_id, seq) WHERE tender IN ('OPEN', 'REVIEW');
CREATE INDEX payment_unsettled ON payment (seq)
    WHERE money IN ('NEW', 'SENDING', 'SEND_UNKNOWN', 'WAITING', 'UNKNOWN');
CREATE INDEX payment_unknown ON payment (seq) WHERE money = 'UNKNOWN' AND tender = 'OPEN';
CREATE INDEX payment_unowned ON payment (seq)
    WHERE money = 'PAID' AND tender IN ('OPEN', 'REVIEW', 'REFUND_DUE');

CREATE TRIGGER payment_money_moves BEFORE UPDATE OF money ON payment
WHEN OLD.money <> NEW.money AND NOT (
    (NEW.money = 'PAID' AND OLD.money <> 'REFUNDED')
    OR (OLD.money || '>' || NEW.money) IN (
        'NEW>SENDING', 'NEW>REFUSED', 'SENDING>REFUSED', 'SENDING>WAITING', 'SENDING>SEND_UNKNOWN',
        'SENDING>NOT_PAID', 'SEND_UNKNOWN>NOT_PAID', 'SEND_UNKNOWN>UNKNOWN', 'WAITING>NOT_PAID',
        'WAITING>UNKNOWN', 'UNKNOWN>NOT_PAID', 'PAID>REFUNDED'))
BEGIN SELECT RAISE(ABORT, 'no such move of money'); END;
CREATE TRIGGER payment_tender_moves BEFORE UPDATE OF tender ON payment
WHEN OLD.tender <> NEW.tender AND (OLD.tender || '>' || NEW.tender) NOT IN (
    'OPEN>COMPLETED_BY_MPESA', 'OPEN>COMPLETED_OTHERWISE', 'OPEN>ABANDONED', 'OPEN>REVIEW',
    'OPEN>REFUND_DUE', 'OPEN>MERGED', 'OPEN>REFUNDED', 'REVIEW>OPEN', 'REVIEW>REFUND_DUE', 'REVIEW>MERGED',
    'REVIEW>REFUNDED', 'COMPLETED_OTHERWISE>REFUND_DUE', 'ABANDONED>REFUND_DUE',
    'COMPLETED_BY_MPESA>REFUND_DUE', 'COMPLETED_BY_MPESA>REFUNDED', 'REFUND_DUE>REFUNDED',
    -- Money that came for a sale that was settled without it, and was another payment's all along.
    'COMPLETED_OTHERWISE>MERGED', 'ABANDONED>MERGED', 'REFUND_DUE>MERGED')
BEGIN SELECT RAISE(ABORT, 'no such move of a tender'); END;
CREATE TRIGGER payment_is_what_was_asked BEFORE UPDATE OF
    id, kind, idem_key, body_digest, checkout_id, amount_cents, phone, account_ref, token_hash, created_at
    ON payment
BEGIN SELECT RAISE(ABORT, 'what was asked for is never changed'); END;
CREATE TRIGGER payment_facts_stay BEFORE UPDATE OF receipt, paid_cents, checkout_request_id, merged_into, invoice_id ON payment
WHEN (OLD.receipt IS NOT NULL AND OLD.receipt IS NOT NEW.receipt)
  OR (OLD.paid_cents IS NOT NULL AND OLD.paid_cents IS NOT NEW.paid_cents)
  OR (OLD.checkout_request_id IS NOT NULL AND OLD.checkout_request_id IS NOT NEW.checkout_request_id)
  OR (OLD.merged_into IS NOT NULL AND OLD.merged_into IS NOT NEW.merged_into)
  OR (OLD.invoice_id IS NOT NULL AND OLD.invoice_id IS NOT NEW.invoice_id)
BEGIN SELECT RAISE(ABORT, 'what was told of a payment stays'); END;
CREATE TRIGGER payment_stays BEFORE DELETE ON payment
BEGIN SELECT RAISE(ABORT, 'a payment is never deleted'); END;

-- What of a checkout comes by M-Pesa: claimed with it, asked for one after the other. `payment_id` where
-- the money is there already; what is asked for has the checkout and the position in its payment's key.
CREATE TABLE checkout_part (
    checkout_id  TEXT    NOT NULL REFERENCES checkout (id),
    position     INTEGER NOT NULL CHECK (position >= 0),
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    phone        TEXT,
    payment_id   TEXT    REFERENCES payment (id),
    PRIMARY KEY (checkout_id, position),
    CHECK (phone IS NOT NULL OR payment_id IS NOT NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX checkout_part_by_payment ON checkout_part (payment_id) WHERE payment_id IS NOT NULL;
CREATE TRIGGER checkout_part_stays BEFORE UPDATE ON checkout_part
BEGIN SELECT RAISE(ABORT, 'what a till sent is never changed'); END;

-- "Receipt, no money": MOBILE_MONEY on a signed receipt that no known payment stands behind.
CREATE TABLE unpaid_tender (
    invoice_id   TEXT    NOT NULL REFERENCES invoice (id),
    position     INTEGER NOT NULL CHECK (position >= 0),
    till_id      TEXT    NOT NULL,
    sale_ref     TEXT    NOT NULL,
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    reference    TEXT,
    state        TEXT    NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'CLOSED')),
    payment_id   TEXT    REFERENCES payment (id),
    who          TEXT,
    reason       TEXT,
    at           INTEGER NOT NULL,
    closed_at    INTEGER,
    PRIMARY KEY (invoice_id, position),
    CHECK (state = 'OPEN' OR (who IS NOT NULL AND closed_at IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX unpaid_tender_open ON unpaid_tender (reference, amount_cents) WHERE state = 'OPEN';
CREATE TRIGGER unpaid_tender_stays BEFORE DELETE ON unpaid_tender
BEGIN SELECT RAISE(ABORT, 'what was signed without money is never deleted'); END;

-- Every word about a payment as it came, also those that changed nothing.
CREATE TABLE payment_event (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    payment_id    TEXT    NOT NULL REFERENCES payment (id),
    at            INTEGER NOT NULL,
    source        TEXT    NOT NULL,
    word          TEXT    NOT NULL,
    code          TEXT,
    money         TEXT    NOT NULL,
    tender        TEXT    NOT NULL,
    changed       INTEGER NOT NULL CHECK (changed IN (0, 1)),
    alarm         TEXT,
    -- Set when a person has seen the alarm.
    note          TEXT    NOT NULL DEFAULT '',
    raw           BLOB
) STRICT;
CREATE INDEX payment_event_by_payment ON payment_event (payment_id, id);
CREATE INDEX payment_event_alarms ON payment_event (id) WHERE alarm IS NOT NULL;
CREATE TRIGGER payment_event_stays BEFORE UPDATE ON payment_event
BEGIN SELECT RAISE(ABORT, 'what was said is never changed'); END;
CREATE TRIGGER payment_event_is_kept BEFORE DELETE ON payment_event
BEGIN SELECT RAISE(ABORT, 'what was said is never deleted'); END;

-- The durable inbox: what M-Pesa sent, exactly, before anybody has read it. `origin_id` is the relay's
-- number, so that a message it delivers twice is one row.
CREATE TABLE mpesa_message (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    origin      TEXT    NOT NULL CHECK (origin IN ('RELAY', 'DIRECT')),
    origin_id   TEXT    UNIQUE,
    kind        TEXT    NOT NULL CHECK (kind IN ('s', 'c', 'v', 'r', 't')),
    token_hash  TEXT    NOT NULL CHECK (length(token_hash) = 64),
    raw         BLOB    NOT NULL,
    peer        TEXT    NOT NULL DEFAULT '',
    received_at INTEGER NOT NULL,
    state       TEXT    NOT NULL DEFAULT 'NEW' CHECK (state IN ('NEW', 'DONE', 'UNMATCHED')),
    payment_id  TEXT    REFERENCES payment (id),
    reason      TEXT,
    settled_at  INTEGER
) STRICT;
CREATE INDEX mpesa_message_open ON mpesa_message (id) WHERE state = 'NEW';
CREATE INDEX mpesa_message_unmatched ON mpesa_message (id) WHERE state = 'UNMATCHED';
CREATE TRIGGER mpesa_message_stays BEFORE UPDATE OF origin, origin_id, kind, token_hash, raw, received_at ON mpesa_message
BEGIN SELECT RAISE(ABORT, 'what M-Pesa sent is never changed'); END;

-- Money on its way back. One at a time per payment; a refused one may be asked for again.
CREATE TABLE refund (
    id            TEXT    PRIMARY KEY CHECK (length(id) = 26),
    payment_id    TEXT    NOT NULL REFERENCES payment (id),
    amount_cents  INTEGER NOT NULL CHECK (amount_cents > 0),
    how           TEXT    NOT NULL CHECK (how IN ('REVERSAL', 'BY_HAND')),
    state         TEXT    NOT NULL CHECK (state IN ('ASKED', 'SENDING', 'SENT', 'DONE', 'REFUSED', 'UNKNOWN')),
    who           TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    token_hash    TEXT    UNIQUE,
    conversation_id TEXT  UNIQUE,
    -- The reversal's own receipt.
    receipt       TEXT,
    code          TEXT,
    says          TEXT,
    raw           BLOB,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX refund_one_open ON refund (payment_id)
    WHERE state IN ('ASKED', 'SENDING', 'SENT', 'UNKNOWN', 'DONE');
CREATE INDEX refund_unsettled ON refund (id) WHERE state IN ('ASKED', 'SENDING', 'SENT', 'UNKNOWN');
-- Sent at most once: nothing leads back to ASKED or SENDING.
CREATE TRIGGER refund_moves BEFORE UPDATE OF state ON refund
WHEN OLD.state <> NEW.state AND (OLD.state || '>' || NEW.state) NOT IN (
    'ASKED>SENDING', 'ASKED>REFUSED', 'SENDING>SENT', 'SENDING>REFUSED', 'SENDING>UNKNOWN', 'SENDING>DONE',
    'SENT>DONE', 'SENT>REFUSED', 'SENT>UNKNOWN', 'UNKNOWN>DONE', 'UNKNOWN>REFUSED')
BEGIN SELECT RAISE(ABORT, 'no such move of a refund'); END;
CREATE TRIGGER refund_is_what_was_ordered BEFORE UPDATE OF
    id, payment_id, amount_cents, how, who, reason, token_hash, created_at ON refund
BEGIN SELECT RAISE(ABORT, 'what was ordered is never changed'); END;
CREATE TRIGGER refund_stays BEFORE DELETE ON refund
BEGIN SELECT RAISE(ABORT, 'a refund is never deleted'); END;

-- What M-Pesa was asked about one receipt (Transaction Status); the answer comes later, under the token.
CREATE TABLE mpesa_question (
    token_hash  TEXT    PRIMARY KEY CHECK (length(token_hash) = 64),
    payment_id  TEXT    NOT NULL REFERENCES payment (id),
    -- The refund that is in doubt; NULL: a receipt that a cashier has typed.
    refund_id   TEXT    REFERENCES refund (id),
    receipt     TEXT    NOT NULL,
    who         TEXT    NOT NULL,
    asked_at    INTEGER NOT NULL,
    answered_at INTEGER
) STRICT, WITHOUT ROWID;

-- What M-Pesa's own list (Pull Transactions) has been read for: only a covered time proves an absence.
CREATE TABLE pulled (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    from_us  INTEGER NOT NULL,
    until_us INTEGER NOT NULL CHECK (until_us > from_us),
    read_at  INTEGER NOT NULL,
    rows     INTEGER NOT NULL
) STRICT;

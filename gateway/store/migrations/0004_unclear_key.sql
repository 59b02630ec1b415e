-- Keys of sales that were sent while this store was an old copy of itself: each may be signed already, by
-- the store that was lost. Once a person has said that the unit is ahead, they stay, and are never signed.
CREATE TABLE unclear_key (
    till_id  TEXT    NOT NULL,
    idem_key TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    -- What a person looks for on paper and on the portal, where it is known.
    till_receipt_no TEXT,
    total_cents     INTEGER,
    -- 0 while signing is held, 1 for ever after.
    settled  INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1)),
    PRIMARY KEY (till_id, idem_key)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER unclear_key_stays BEFORE DELETE ON unclear_key WHEN OLD.settled = 1
BEGIN SELECT RAISE(ABORT, 'what may be signed already stays so'); END;

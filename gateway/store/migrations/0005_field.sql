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

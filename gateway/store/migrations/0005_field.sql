-- What the field does to a shop: what is recorded of each sending, so that evidence can be weighed.

-- The run of the control unit that the last sending of a sale went to (NULL: an external unit, whose
-- restarts are not seen), when that was by CLOCK_BOOTTIME, and whether a resend was called a duplicate.
ALTER TABLE invoice ADD COLUMN unit_life TEXT;
ALTER TABLE invoice ADD COLUMN last_sent_boot_id TEXT;
ALTER TABLE invoice ADD COLUMN last_sent_boot_ns INTEGER;
ALTER TABLE invoice ADD COLUMN duplicate_seen INTEGER NOT NULL DEFAULT 0 CHECK (duplicate_seen IN (0, 1));

-- What proves that a job with state PRINTED is out: the printer's own answers, nothing but its last byte on the
-- line of a printer that cannot answer, or a person. NULL: printed before this column.
ALTER TABLE print_job ADD COLUMN proof TEXT CHECK (proof IN ('CONFIRMED', 'SENT', 'PERSON'));
CREATE INDEX print_job_sent ON print_job (printer, updated_at) WHERE proof = 'SENT';

-- What each printer was found to answer, on the port that it had then, and what a person has corrected. Both JSON.
CREATE TABLE printer_found (
    printer   TEXT    PRIMARY KEY,
    port      TEXT    NOT NULL,
    found     TEXT,
    corrected TEXT    NOT NULL DEFAULT '{}',
    at        INTEGER NOT NULL
) STRICT;

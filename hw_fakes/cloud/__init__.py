"""The fake cloud: takes the outbox's batches, with faults on demand."""

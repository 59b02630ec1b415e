"""The cloud's wire: one POST per batch, answered record by record. No policy."""

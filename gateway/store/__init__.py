"""SQLite: one writer, numbered migrations, and every SQL statement of the gateway."""

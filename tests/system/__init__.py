"""Tests of the gateway against real parts: SQLite files, a JVM, ptys, HTTP."""

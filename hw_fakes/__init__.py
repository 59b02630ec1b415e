"""Fake peers of the gateway: control unit, printer, cloud. They import nothing from it."""

"""M-Pesa's wires: Daraja's API, its messages, the relay. Knows no policy and no store."""

"""Going on without the network: the ceiling's monitor and the outbox to the cloud."""

"""The fake scale: a pan with a load on it, asked by W or sending lines."""

"""A small public server that keeps M-Pesa's messages until a gateway behind NAT has fetched them."""

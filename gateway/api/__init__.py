"""The HTTP side of the gateway: routes for tills, errors as RFC 9457 problems, event stream."""

"""The real daemon with less patience: `python -m tests.support.hasty run --config FILE`.

Nothing is changed but how long it waits for who does not answer, so that a test need not wait as long.
"""

from __future__ import annotations

import functools
import sys

from aiohttp import web

from gateway.api import body, events
from gateway.cli import main
from gateway.mpesa import relay_client

if __name__ == "__main__":
    events.HEARTBEAT_S = 0.3
    events.GONE_S = 1.0
    body.BODY_MAX_S = 1.0
    # For the rest of a body that nobody wants any more.
    web.AppRunner = functools.partial(web.AppRunner, lingering_time=1.0)  # type: ignore[assignment,misc]
    relay_client.WAIT_S = relay_client.SILENT_S = relay_client.CONNECT_S = 1
    relay_client.BACKOFF_LAST_S = 1.0
    sys.exit(main())

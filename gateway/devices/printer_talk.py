"""Questions to a printer and its answers over one open line. Blocking, in the printer's thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from gateway.devices.channel import Channel
from gateway.devices.printer_status import Listener

# One wait on the line, in seconds.
LOOK_S = 0.1
# So long a silence means that nothing of before is still on its way. Seconds.
QUIET_S = 0.3
# How long a line may take for a few bytes, in seconds.
PUSH_S = 0.5
# So many reads with something in them in one wait are no answer any more; it is another device.
FLOOD_READS = 500


class Talk:
    """What a printer says goes to `heard`; `stop` ends every wait."""

    def __init__(self, channel: Channel, stop: threading.Event) -> None:
        self.channel = channel
        self.stop = stop
        self.heard = Listener()

    def renew(self) -> None:
        """Forget what was heard: the line was opened again."""
        self.heard = Listener()

    def push(self, data: bytes) -> bool:
        """Send a few bytes now; return False if the printer does not take them. ChannelLost."""
        left = data
        for _ in range(round(PUSH_S / LOOK_S)):
            left = left[self.channel.write_some(left, LOOK_S) :]
            if not left:
                return True
        return False

    def hear(self, wait_s: float) -> bytes:
        """Return what arrived within the time, sorted into `heard` as well. ChannelLost."""
        data = self.channel.read_some(wait_s)
        self.heard.feed(data)
        return data

    def listen(self, silence_s: float) -> Iterator[bytes]:
        """Yield after every read; end after so long a silence, a flood, or a stop."""
        left = max(1, round(silence_s / LOOK_S))
        for _ in range(FLOOD_READS):
            data = self.hear(LOOK_S)
            if not data:
                left -= 1
            yield data
            if left <= 0 or self.stop.is_set():
                return

    def settle(self, silence_s: float = QUIET_S) -> None:
        """Hear everything that is still on its way."""
        for _ in self.listen(silence_s):
            pass

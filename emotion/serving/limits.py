"""Limits of the demo's server."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MAX_ADDRESSES = 4096


@dataclass
class Limits:
    """The settings `limits` of conf/demo.yaml."""

    megabytes: float
    megapixels: float
    rate_limit: float | None
    max_queue: int
    connections: int
    timeout: float


class RateLimiter:
    """Allow each address `rate_limit` requests per second, twice as many at once after a pause; None allows any."""

    def __init__(self, rate_limit: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate_limit, self.clock = rate_limit, clock
        self.tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens and when; least recently used first

    def wait(self, address: str) -> int:
        """Return 0 and count the request if it is allowed, otherwise the seconds to wait."""
        if self.rate_limit is None:
            return 0
        now, burst = self.clock(), max(1.0, 2 * self.rate_limit)
        tokens, since = self.tokens.pop(address, (burst, now))
        tokens = min(burst, tokens + (now - since) * self.rate_limit)
        allowed = tokens >= 1
        self.tokens[address] = (tokens - allowed, now)
        if len(self.tokens) > MAX_ADDRESSES:
            self.tokens.popitem(last=False)
        return 0 if allowed else math.ceil((1 - tokens) / self.rate_limit)

"""What the handlers of the API share."""

from dataclasses import dataclass

from fastapi import Request

from producer.api.desk import Desk
from producer.api.feed import Feed
from producer.api.gate import Gate
from producer.api.inviter import Inviter
from producer.api.meter import Meter
from producer.client import Client


@dataclass(frozen=True, kw_only=True)
class Mill:
    client: Client
    gate: Gate
    feed: Feed
    desk: Desk
    inviter: Inviter
    meter: Meter


def mill_of(request: Request) -> Mill:
    found: Mill = request.app.state.mill
    return found

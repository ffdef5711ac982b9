"""The app, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from producer.api import (
    batches,
    datasets,
    events,
    health,
    jobs,
    live,
    metrics,
    models,
    pictures,
    schedules,
    workers,
)
from producer.api.desk import Desk
from producer.api.feed import Feed
from producer.api.gate import Gate
from producer.api.inviter import Inviter
from producer.api.logs import RequestLog
from producer.api.meter import Meter
from producer.api.mill import Mill
from producer.api.openapi import describe_api
from producer.api.page import mount_page
from producer.api.problems import add_problems
from producer.api.uploads import BodyLimit, most_form
from producer.client import Client
from storage.events import Events
from storage.keys import Keys
from storage.repeat import Repeat
from storage.webhooks import Webhooks


def make_app(client: Client, *, local: bool) -> FastAPI:
    """The API over a client's services. `local`: it will be bound to loopback, see Gate."""
    database = client.ledger.database
    inviter = Inviter(client.broker)
    mill = Mill(
        client=client,
        gate=Gate(Keys(database), local=local),
        feed=Feed(Events(database)),
        desk=Desk(client.ledger, inviter),
        inviter=inviter,
        meter=Meter(client.ledger),
    )

    settings = client.settings
    webhooks = Repeat("webhooks", settings.poll_seconds, Webhooks(client.ledger, settings).work)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        mill.desk.start()
        mill.inviter.start()
        webhooks.start()
        try:
            yield
        finally:
            mill.feed.close()
            mill.desk.stop()
            mill.inviter.stop()
            webhooks.stop()

    app = FastAPI(
        title="latentmill",
        version=version("latentmill"),
        description="Asynchronous image-to-image jobs for diffusion models.",
        lifespan=running,
        docs_url=None,
        redoc_url=None,
    )
    app.state.mill = mill
    add_problems(app)
    app.add_middleware(BodyLimit, most_form=most_form(client.settings.max_image_pixels))
    app.add_middleware(RequestLog, meter=mill.meter)
    for part in (
        jobs,
        pictures,
        live,
        events,
        batches,
        datasets,
        schedules,
        models,
        workers,
        health,
        metrics,
    ):
        app.include_router(part.router)
    describe_api(app)
    mount_page(app)
    return app

"""`/healthz` and `/readyz`: whether this process lives, and whether it can do its work."""

from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from producer.api.jobs import TheMill
from producer.api.shapes import Health, Readiness
from storage.broker import check
from storage.errors import LatentmillError

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=Health)
async def healthz() -> JSONResponse:
    """This process answers."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
def readyz(mill: TheMill) -> JSONResponse:
    """Ledger, broker and object store answer. Jobs are accepted without the broker too."""
    client = mill.client
    parts = {
        "ledger": _state(lambda: client.ledger.schema()),
        "broker": _state(lambda: check(client.broker)),
        "objects": _state(lambda: client.objects.exists("inputs/readyz")),
    }
    workers = len(client.ledger.workers()) if parts["ledger"] == "ok" else 0
    ready = parts["ledger"] == parts["objects"] == "ok"
    return JSONResponse({"ready": ready, **parts, "workers": workers}, 200 if ready else 503)


def _state(ask: Callable[[], object]) -> str:
    """`ok`, or the code of what is wrong: the sentence would name addresses to anybody."""
    try:
        ask()
    except LatentmillError as error:
        return error.code
    return "ok"

"""`/metrics` for Prometheus: what the ledger knows, and how this server answers."""

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from producer.api.gate import Admin
from producer.api.jobs import TheMill
from producer.api.problems import responses

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Figures.", "content": {"text/plain": {}}},
        **responses(401, 403, 429, 503),
    },
)
def metrics(mill: TheMill, caller: Admin) -> Response:
    """Figures in Prometheus' text format."""
    return Response(generate_latest(mill.meter.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

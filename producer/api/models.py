"""`/v1/models`: what jobs may name as `model`."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from producer.api.gate import Reader
from producer.api.jobs import TheMill
from producer.api.problems import responses
from producer.api.shapes import Models

router = APIRouter(tags=["models"])

#: Where a checkpoint lies on the workers is their owner's business.
_SHOWN = {
    "alias",
    "pool",
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "strength",
    "min_side",
    "max_side",
    "max_pixels",
}


@router.get("/v1/models", response_model=Models, responses=responses(401, 403, 429, 503))
def list_models(mill: TheMill, caller: Reader) -> JSONResponse:
    """Models by alias, with what holds for steps that leave it open."""
    models = sorted(mill.client.models.items())
    return JSONResponse(
        {"models": [model.model_dump(mode="json", include=_SHOWN) for _, model in models]}
    )

"""`POST /v1/batches`, and what a batch comes to: its account and its results as a dataset."""

import asyncio
import json
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.datastructures import FormData, UploadFile

from producer.api import examples
from producer.api.batches import BatchId, BatchState, show
from producer.api.gate import Admin
from producer.api.jobs import TheMill
from producer.api.problems import responses
from producer.api.uploads import MOST_JSON, is_form
from producer.datasets.account import make_account
from producer.datasets.recipe import Recipe, make_recipe
from producer.datasets.source import SHARD, TABLES
from producer.datasets.submit import submit_dataset
from producer.export.encoding import Encoding
from producer.export.export import FILES, export_batch
from producer.export.rows import Export
from storage.batches import Status
from storage.errors import InvalidSpec
from storage.spec import explained

router = APIRouter(tags=["batches"])

#: Whole datasets that this process reads or writes at once.
_at_once = asyncio.Semaphore(2)
Format = Literal["imagefolder", "webdataset", "openai-batch", "contact-sheets", "parquet-metadata"]


class AccountShape(BaseModel):
    """What has become of every row, and whether each result is in the bucket."""

    id: str
    name: str
    total: int | None = Field(description="null: the submission did not end.")
    rows: dict[Status, int]
    failed_by_code: dict[str, int]
    missing_results: int
    missing_keys: list[str]
    unaccounted: int
    complete: bool = Field(description="Every row is accounted for.")


class _Wanted(BaseModel):
    """A request's fields; `source` is a file that came along, or names objects."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    source: str | UploadFile
    recipe: dict[str, Any]
    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    pilot: Annotated[int, Field(ge=0, le=1000)] = 0


@router.post(
    "/v1/batches",
    status_code=201,
    response_model=BatchState,
    responses=responses(400, 401, 403, 413, 422, 429, 503),
    openapi_extra={"requestBody": examples.DATASET},
)
async def submit(request: Request, mill: TheMill, caller: Admin) -> JSONResponse:
    """Submit a dataset: a table or shard that comes along, or what lies in S3, and a recipe.

    The answer comes when every row has entered; a row that cannot become a job has its reason then.
    Rows of an upload name URLs or keys of the bucket. Submitting again does nothing twice.
    """
    async with _read(request) as wanted, _at_once:
        batch_id = await run_in_threadpool(_submit, mill, wanted, make_recipe(wanted.recipe))
    answer = await run_in_threadpool(show, mill, caller, batch_id)
    answer.status_code = 201
    answer.headers["Location"] = f"{str(request.base_url).rstrip('/')}/v1/batches/{batch_id}"
    return answer


@router.get(
    "/v1/batches/{batch_id}/report",
    response_model=AccountShape,
    responses=responses(401, 403, 404, 422, 429, 503),
)
def report(mill: TheMill, caller: Admin, batch_id: BatchId) -> JSONResponse:
    """Account for every row, looking for each result in the bucket."""
    batch = mill.client.batches.find(batch_id)
    account = make_account(mill.client, batch)
    return JSONResponse(
        {
            "id": batch.id,
            "name": batch.name,
            "total": batch.total,
            "rows": {status: account.counts.statuses[status] for status in Status},
            "failed_by_code": account.counts.codes,
            "missing_results": account.missing,
            "missing_keys": account.missing_keys,
            "unaccounted": account.unaccounted,
            "complete": account.is_complete,
        }
    )


@router.get(
    "/v1/batches/{batch_id}/export",
    response_class=FileResponse,
    responses={
        200: {
            "description": "A tar of the dataset; of `parquet-metadata` the file itself.",
            "content": {"application/x-tar": {}, "application/vnd.apache.parquet": {}},
        },
        **responses(401, 403, 404, 422, 429, 503),
    },
)
async def export(
    mill: TheMill,
    caller: Admin,
    batch_id: BatchId,
    format: Annotated[Format, Query(description="The dataset's form.")] = "imagefolder",  # noqa: A002
    image_format: Literal["png", "jpeg", "webp"] = "png",
    quality: Annotated[
        int | None, Query(ge=1, le=100, description="Of jpeg and webp. Default: 90.")
    ] = None,
) -> FileResponse:
    """The results that are there now, as a dataset."""
    encoding = Encoding(image_format, quality)
    batch = await run_in_threadpool(mill.client.batches.find, batch_id)
    folder = Path(tempfile.mkdtemp(prefix="latentmill-export-"))
    try:
        async with _at_once:
            file = await run_in_threadpool(
                _export, Export(mill.client, batch, encoding), folder, format
            )
    except BaseException:
        shutil.rmtree(folder)
        raise
    kind = "application/x-tar" if file.suffix == ".tar" else "application/vnd.apache.parquet"
    cleanup = BackgroundTask(shutil.rmtree, folder)
    return FileResponse(file, media_type=kind, filename=file.name, background=cleanup)


def _export(export: Export, folder: Path, form: Format) -> Path:
    name = f"{export.batch.id}-{form}"
    if form in FILES:
        out = folder / f"{name}.parquet"
        export_batch(export, out, form)
        return out
    out, packed = folder / name, folder / f"{name}.tar"
    export_batch(export, out, form)
    with tarfile.open(packed, "w") as tar:
        tar.add(out, arcname=name)
    shutil.rmtree(out)
    return packed


def _submit(mill: TheMill, wanted: _Wanted, recipe: Recipe) -> str:
    client, source = mill.client, wanted.source
    if isinstance(source, str):
        if not source.startswith("s3://"):
            raise InvalidSpec(f"source: {source[:200]!r} is not of the form s3://bucket/prefix")
        batch = submit_dataset(client, source, recipe, name=wanted.name, pilot=wanted.pilot)
        return batch.id
    name = PurePath(source.filename or "").name
    ending = PurePath(name).suffix.lower()
    if ending not in (*TABLES, SHARD) or not name.isprintable():
        raise InvalidSpec(f"source: {name[:100]!r} must end with {', '.join((*TABLES, SHARD))}")
    with tempfile.TemporaryDirectory(prefix="latentmill-batch-") as folder:
        # Where it comes to lie is not its name's to say.
        file = Path(folder) / f"upload{ending}"
        with file.open("wb") as out:
            shutil.copyfileobj(source.file, out)
        batch = submit_dataset(
            client, str(file), recipe, name=wanted.name, pilot=wanted.pilot, uploaded_as=name
        )
    return batch.id


@asynccontextmanager
async def _read(request: Request) -> AsyncIterator[_Wanted]:
    """What is asked for; a file lasts as long as the block."""
    if not is_form(request):
        yield _wanted(_json(await request.body()))
        return
    async with request.form(max_files=1, max_fields=10, max_part_size=MOST_JSON) as form:
        yield _wanted(_fields(form))


def _fields(form: FormData) -> dict[str, Any]:
    values: dict[str, Any] = dict(form)
    if isinstance(values.get("recipe"), str):
        values["recipe"] = _json(values["recipe"])
    if isinstance(values.get("pilot"), str):
        if not values["pilot"].isdecimal():
            raise InvalidSpec(f"pilot: {values['pilot'][:20]!r} is no number of rows")
        values["pilot"] = int(values["pilot"][:9])
    return values


def _json(text: str | bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidSpec("a JSON object is needed")
    return found


def _wanted(values: Mapping[str, Any]) -> _Wanted:
    with explained():
        return _Wanted.model_validate(dict(values))

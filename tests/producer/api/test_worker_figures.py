"""What workers report of their devices is there for Prometheus, and the dashboard shows it."""

import json
import re
from pathlib import Path

import httpx2

from producer import Client
from storage.jobs import Worker

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana.json"
FIGURES = {
    "running": 3, "up_seconds": 60.5, "idle_seconds": 1.5, "results": 40, "loads": 2,
    "load_seconds": 9.0, "finish_seconds": 4.0, "claim_count": 41, "claim_seconds": 0.4,
    "upload_count": 40, "upload_seconds": 8.0,
    "steps": {"demo 64x64": {"calls": 100, "rows": 900, "seconds": 30.0}},
}  # fmt: skip


def test_each_workers_device_is_accounted_for(web: httpx2.Client, client: Client) -> None:
    worker = Worker(
        name="w", device="cpu", pool="default", slots=4, loaded=(), started_at=1.0, figures=FIGURES
    )
    client.ledger.report_worker(worker)
    # One that began just now has nothing to say yet.
    client.ledger.report_worker(
        Worker(name="v", device="cpu", pool="default", slots=4, loaded=(), started_at=1.0)
    )
    said = web.get("/metrics").text.splitlines()
    for line in (
        'latentmill_worker_running{worker="w"} 3.0',
        'latentmill_device_idle_seconds_total{worker="w"} 1.5',
        'latentmill_device_idle_seconds_total{worker="v"} 0.0',
        'latentmill_results_total{worker="w"} 40.0',
        'latentmill_model_loads_total{worker="w"} 2.0',
        'latentmill_step_rows_total{group="demo 64x64",worker="w"} 900.0',
    ):
        assert line in said


def test_the_dashboard_asks_for_figures_that_are_there(web: httpx2.Client, client: Client) -> None:
    client.ledger.report_worker(
        Worker(
            name="w",
            device="cpu",
            pool="default",
            slots=4,
            loaded=(),
            started_at=1.0,
            figures=FIGURES,
        )
    )
    web.get("/v1/models")
    told = set(re.findall(r"^# TYPE (\S+)", web.get("/metrics").text, re.MULTILINE))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"latentmill_\w+", target["expr"])
    }
    assert len(panels) >= 10
    assert {name.removesuffix("_bucket") for name in asked} <= told

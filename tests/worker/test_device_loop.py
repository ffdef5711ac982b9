"""The device loop: steps in, pictures and latents out, by one thread."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.errors import BadOutput, DeviceFailed, InvalidModel, InvalidSpec
from storage.models import Model
from storage.spec import Img2Img, Text2Img
from tests.reference.make_pipelines import picture
from tests.reference.tiny import write_stable_diffusion
from worker.compiling import Compiling, Need
from worker.device import Device
from worker.device_loop import DeviceLoop
from worker.loaded_models import Wanted
from worker.rendering import Latent, Rendered, Request, RowState, Watch
from worker.room import Room
from worker.runner import Stopping

SHORT = {"model": "tiny", "num_inference_steps": 4, "seed": 7}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    write_stable_diffusion(folder / "tiny")
    write_stable_diffusion(folder / "other")
    # One number of difference makes another VAE.
    config = folder / "other" / "vae" / "config.json"
    config.write_text(config.read_text().replace('"sample_size": 64', '"scaling_factor": 0.5'))
    return {name: Model(alias=name, source=str(folder / name)) for name in ("tiny", "other")}


@pytest.fixture(scope="module")
def loop() -> Iterator[DeviceLoop]:
    loop = DeviceLoop(Device("cpu"))
    loop.start()
    yield loop
    loop.stop()


@pytest.fixture
def calls(loop: DeviceLoop, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the VAE's passes, in order, while a test runs."""
    made: list[str] = []
    render(loop, models, Text2Img(prompt="a cat", **SHORT))
    pipe = loop._models.get(Wanted(models["tiny"]))
    for name, method in (("encode", "encode_pixels"), ("decode", "decode_latents")):
        monkeypatch.setattr(pipe, method, noting(made, name, getattr(pipe, method)))
    return made


def noting(made: list[str], name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def spy(*args: Any) -> Any:
        made.append(name)
        return original(*args)

    return spy


def render(
    loop: DeviceLoop,
    models: dict[str, Model],
    step: Text2Img | Img2Img,
    source: Image.Image | Latent | None = None,
    following: Img2Img | None = None,
    picture: bool = True,
    watch: Watch | None = None,
    resume: RowState | None = None,
) -> Rendered:
    return loop.submit(
        Request(
            step=step,
            model=models[step.model],
            source=source,
            following=None if following is None else (following, models[following.model]),
            picture=picture,
            watch=watch or Watch(),
            resume=resume,
        )
    ).result()


def test_a_step_ends_in_a_picture_of_the_models_own_size(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    rendered = render(loop, models, Text2Img(prompt="a cat", **SHORT))
    assert rendered.picture is not None
    assert rendered.picture.size == (rendered.width, rendered.height) == (64, 64)
    assert rendered.scheduler == "PNDMScheduler"
    assert rendered.warnings == ()
    assert loop.loaded == ("tiny",)


def test_what_a_step_leaves_open_is_the_familys_own_and_is_said(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    step = Img2Img(model="tiny", prompt="a cat", strength=0.1, seed=1)
    rendered = render(loop, models, step, picture(64, 64))
    assert rendered.options == {
        "num_inference_steps": 50, "guidance_scale": 7.5, "strength": 0.1,
    }  # fmt: skip


def test_a_size_beyond_the_models_limits_is_refused(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    small = {"tiny": models["tiny"].model_copy(update={"max_side": 56})}
    with pytest.raises(InvalidSpec, match="model tiny allows sides of at most 56"):
        render(loop, small, Img2Img(prompt="a cat", **SHORT), picture(64, 64))


def test_steps_with_the_same_vae_hand_over_the_latent_with_no_decode_and_encode_between(
    loop: DeviceLoop, models: dict[str, Model], calls: list[str]
) -> None:
    second = Img2Img(prompt="a dog", strength=0.5, **SHORT)
    first = render(loop, models, Text2Img(prompt="a cat", **SHORT), following=second, picture=False)
    assert first.picture is None
    assert first.latent is not None
    render(loop, models, second, source=first.latent)
    assert calls == ["decode"]


def test_a_kept_step_is_decoded_and_still_hands_over_its_latent(
    loop: DeviceLoop, models: dict[str, Model], calls: list[str]
) -> None:
    second = Img2Img(prompt="a dog", strength=0.5, **SHORT)
    first = render(loop, models, Text2Img(prompt="a cat", **SHORT), following=second)
    assert first.picture is not None
    assert first.latent is not None
    assert calls == ["decode"]


def test_another_size_in_the_next_step_hands_over_the_picture(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    second = Img2Img(prompt="a dog", strength=0.5, width=72, **SHORT)
    first = render(loop, models, Text2Img(prompt="a cat", **SHORT), following=second, picture=False)
    assert first.latent is None
    assert first.picture is not None
    assert render(loop, models, second, source=first.picture).width == 72


def test_another_vae_in_the_next_step_hands_over_the_picture(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    second = Img2Img(prompt="a dog", strength=0.5, **{**SHORT, "model": "other"})
    first = render(loop, models, Text2Img(prompt="a cat", **SHORT), following=second, picture=False)
    assert first.latent is None
    assert first.picture is not None


def test_a_latent_of_another_vae_is_refused(loop: DeviceLoop, models: dict[str, Model]) -> None:
    latent = Latent(values=np.zeros((4, 8, 8), np.float32), fingerprint="another")
    with pytest.raises(InvalidModel, match="model tiny: its VAE is not the one"):
        render(loop, models, Img2Img(prompt="a dog", strength=0.5, **SHORT), source=latent)


def test_a_watch_sees_every_step_and_can_end_the_run(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    seen: list[tuple[int, int]] = []

    class Impatient(Watch):
        def report(self, done: int, total: int, *preview: Any) -> None:
            seen.append((done, total))
            if done == 2:
                self.leave = Stopping("enough")
            super().report(done, total, *preview)

    watch = Impatient()
    with pytest.raises(Stopping):
        render(loop, models, Text2Img(prompt="a cat", **SHORT), watch=watch)
    assert seen == [(0, 5), (1, 5), (2, 5)]
    assert watch.left is not None


@pytest.mark.parametrize("scheduler", ["PNDMScheduler", "EulerAncestralDiscreteScheduler"])
def test_a_row_that_left_goes_on_where_it_was_and_ends_bit_for_bit_the_same(
    loop: DeviceLoop, models: dict[str, Model], scheduler: str
) -> None:
    class Impatient(Watch):
        def report(self, done: int, total: int, *preview: Any) -> None:
            if done == 3:
                self.leave = Stopping("enough")

    step = Img2Img(prompt="a cat", strength=1.0, scheduler=scheduler, **SHORT)
    whole = render(loop, models, step, picture(64, 64))
    watch = Impatient()
    with pytest.raises(Stopping):
        render(loop, models, step, picture(64, 64), watch=watch)
    resumed = render(loop, models, step, picture(64, 64), resume=watch.left)
    assert (whole.resumed_at, resumed.resumed_at) == (0, 3)
    assert np.array_equal(np.asarray(resumed.picture), np.asarray(whole.picture))

    other = step.model_copy(update={"num_inference_steps": 6})
    anew = render(loop, models, other, picture(64, 64), resume=watch.left)
    assert anew.resumed_at == 0


def test_what_was_cut_off_a_long_prompt_is_said(loop: DeviceLoop, models: dict[str, Model]) -> None:
    rendered = render(loop, models, Text2Img(prompt="cat " * 90, **SHORT))
    (warning,) = rendered.warnings
    assert "77 tokens" in warning
    assert "cat cat" in warning


def test_a_bad_value_is_the_users_and_a_bad_checkpoint_the_models_error(
    loop: DeviceLoop, models: dict[str, Model], tmp_path: Path
) -> None:
    unknown = {"scheduler": "NoSuchScheduler"}
    with pytest.raises(InvalidSpec, match="NoSuchScheduler"):
        render(loop, models, Text2Img(prompt="a cat", **SHORT).model_copy(update=unknown))
    empty = {"tiny": Model(alias="tiny", source=str(tmp_path))}
    with pytest.raises(InvalidModel, match=r"model tiny: .*model_index\.json"):
        render(loop, empty, Text2Img(prompt="a cat", **SHORT))


def test_results_are_the_same_alone_and_one_after_another(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    step = Text2Img(prompt="a cat", **SHORT)
    first, second = render(loop, models, step), render(loop, models, step)
    assert np.array_equal(np.asarray(first.picture), np.asarray(second.picture))


def submit(
    loop: DeviceLoop,
    models: dict[str, Model],
    step: Text2Img | Img2Img,
    source: Image.Image | Latent | None = None,
    priority: int = 0,
) -> tuple["Future[Rendered]", Watch]:
    """A request whose latent is wanted; its future, and the watch that can end it."""
    following = Img2Img(prompt="then", **{**SHORT, "model": step.model}), models[step.model]
    watch = Watch()
    request = Request(
        step=step, model=models[step.model], source=source, following=following,
        picture=False, priority=priority, watch=watch,
    )  # fmt: skip
    return loop.submit(request), watch


def ragged(count: int) -> Iterator[tuple[Text2Img | Img2Img, Image.Image | None]]:
    """Steps that differ in all that rows of one call may differ in."""
    schedulers = [None, "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler"]
    for i in range(count):
        values: dict[str, Any] = {
            **SHORT, "prompt": f"picture {i % 5}", "seed": i, "num_inference_steps": 2 + i % 5,
            "guidance_scale": 1.0 if i % 3 == 0 else 5.0, "scheduler": schedulers[i % 4],
        }  # fmt: skip
        if i % 2:
            yield Text2Img(**values), None
        else:
            yield Img2Img(strength=0.5 + i % 5 / 10, **values), picture(64, 64)


def test_rows_in_changing_company_get_what_they_get_alone(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    steps = list(ragged(24))
    alone = [submit(loop, models, *each)[0].result().latent for each in steps]
    calls: list[int] = []
    pipe = loop._models.get(Wanted(models["tiny"]))
    original = pipe.step
    pipe.step = lambda rows: calls.append(len(rows)) or original(rows)
    try:
        sent = []
        for i, each in enumerate(steps):
            sent.append(submit(loop, models, *each))
            if i % 4 == 3:
                time.sleep(0.05)
            if i % 6 == 5:
                sent[i - 1][1].leave = Stopping("it left")
        for (future, watch), expected in zip(sent, alone, strict=True):
            if watch.leave is not None:
                assert isinstance(future.exception(), Stopping | None)
                continue
            latent = future.result().latent
            assert latent is not None
            assert expected is not None
            worst = np.abs(latent.values - expected.values).max()
            assert worst <= 1e-4 * np.abs(expected.values).max()
    finally:
        del pipe.step
    assert max(calls) >= 4
    assert len(calls) < sum(step.num_inference_steps for step, _ in steps) / 2


def test_an_error_is_pinned_on_its_row_and_the_others_go_on(
    loop: DeviceLoop, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [Text2Img(prompt=f"cat {i}", **{**SHORT, "seed": i}) for i in range(5)]
    pipe = loop._models.get(Wanted(models["tiny"]))
    poison, hold = 3, threading.Event()
    original, begin = pipe.step, pipe.begin

    def step(rows: list[Any]) -> None:
        if any(getattr(row, "poisoned", False) for row in rows):
            raise RuntimeError("Out of memory. More is said here.")
        original(rows)

    def begin_marked(prompt: str, *args: Any, **options: Any) -> Any:
        hold.wait(10)
        row = begin(prompt, *args, **options)
        row.poisoned = prompt == f"cat {poison}"
        return row

    monkeypatch.setattr(pipe, "step", step)
    monkeypatch.setattr(pipe, "begin", begin_marked)
    futures = [submit(loop, models, each)[0] for each in steps]
    hold.set()
    for i, future in enumerate(futures):
        if i == poison:
            with pytest.raises(DeviceFailed, match=r"^Out of memory$"):
                future.result()
        else:
            assert future.result().latent is not None


def test_a_row_that_is_no_longer_finite_ends_at_once_and_alone(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    broken = Latent(
        values=np.full((4, 8, 8), np.nan, np.float32),
        fingerprint=loop._models.vae_fingerprint(models["tiny"]),
    )
    bad, watch = submit(loop, models, Img2Img(prompt="a dog", **SHORT), broken)
    good, _ = submit(loop, models, Text2Img(prompt="a cat", **SHORT))
    with pytest.raises(BadOutput, match=r"after step 1 of .* not finite"):
        bad.result()
    assert watch.done < watch.total
    assert good.result().latent is not None


def test_a_model_that_cannot_be_loaded_fails_its_own_requests_only(
    loop: DeviceLoop, models: dict[str, Model], tmp_path: Path
) -> None:
    both = {**models, "broken": Model(alias="broken", source=str(tmp_path))}
    good, _ = submit(loop, both, Text2Img(prompt="a cat", **SHORT))
    bad, _ = submit(loop, both, Text2Img(prompt="a cat", **{**SHORT, "model": "broken"}))
    with pytest.raises(InvalidModel, match="model broken: "):
        bad.result()
    assert good.result().latent is not None


def test_out_of_memory_halves_the_rows_of_its_group_and_fails_no_job(
    models: dict[str, Model], loop: DeviceLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = loop._models.get(Wanted(models["tiny"]))
    original, sizes, hold = pipe.step, list[int](), threading.Event()

    def step(rows: list[Any]) -> None:
        sizes.append(len(rows))
        if len(rows) > 3:
            raise RuntimeError("Out of memory. More is said here.")
        original(rows)

    monkeypatch.setattr(loop, "_room", Room(None, "cpu"))
    monkeypatch.setattr(pipe, "step", step)
    monkeypatch.setattr(pipe, "look_ahead", lambda _: hold.wait(10))
    steps = [Text2Img(prompt="a cat", **{**SHORT, "seed": i}) for i in range(8)]
    futures = [submit(loop, models, each)[0] for each in steps]
    hold.set()
    assert all(future.result().latent is not None for future in futures)
    assert loop._room.rows(models["tiny"], (4, 8, 8)) == 2
    # It was tried once with too many and once with half of them, and then never again.
    assert [size for size in sizes if size > 3] == [8, 4]


def test_while_a_row_is_on_its_way_it_can_be_looked_at(
    loop: DeviceLoop, models: dict[str, Model]
) -> None:
    looks: list[Image.Image | None] = []

    class Curious(Watch):
        def report(self, done: int, total: int, *preview: Any) -> None:
            super().report(done, total, *preview)
            looks.append(self.preview())

    step = Img2Img(prompt="a dog", strength=0.5, width=80, **SHORT)
    render(loop, models, step, source=picture(96, 64), watch=Curious())
    assert [look.size for look in looks if look is not None] == [(64, 51)] * len(looks)
    assert len(looks) >= 3


def test_the_meter_knows_calls_rows_and_results(loop: DeviceLoop, models: dict[str, Model]) -> None:
    before = loop.meter.figures()
    render(loop, models, Text2Img(prompt="a cat", **SHORT))
    after = loop.meter.figures()
    assert after["results"] == before["results"] + 1
    one, other = (each["steps"]["tiny 64x64"] for each in (before, after))
    assert other["calls"] == one["calls"] + 5
    assert other["rows"] == one["rows"] + 5
    assert after["idle_seconds"] + after["finish_seconds"] < after["up_seconds"]


class Aside(Compiling):
    """Without a process: `met` says what is compiled."""

    def __init__(self, met: Callable[[Need], bool]) -> None:
        super().__init__(None)
        self.met = met
        self.noted: list[Need] = []

    def is_met(self, need: Need, _: Any) -> bool:
        return self.met(need)

    def note(self, need: Need) -> None:
        self.noted.append(need)


@pytest.mark.parametrize(("done_at", "begins"), [(12, range(12, 20)), (None, [20])])
def test_rows_in_flight_do_not_wait_for_what_another_request_needs_compiled(
    loop: DeviceLoop,
    models: dict[str, Model],
    monkeypatch: pytest.MonkeyPatch,
    done_at: int | None,
    begins: Sequence[int],
) -> None:
    """It begins when the other process is done, or when nothing is in flight any more."""
    sizes, seen = {(64, 64)}, []
    aside = Aside(lambda need: need.size in sizes)
    monkeypatch.setattr(loop, "_compiling", aside)
    monkeypatch.setattr(loop, "_room", Room(None, "cpu"))  # other tests leave less
    long = Text2Img(prompt="a cat", **{**SHORT, "num_inference_steps": 19})
    wide = Text2Img(prompt="a dog", width=72, **SHORT)

    class Other(Watch):
        def report(self, done: int, total: int, *_: Any) -> None:
            seen.append(first.done)

    class First(Watch):
        def report(self, done: int, total: int, *_: Any) -> None:
            super().report(done, total)
            if done == 3:
                self.other = send(wide, Other())
            if done == done_at:
                sizes.add((72, 64))

    def send(step: Text2Img, watch: Watch) -> "Future[Rendered]":
        model = models["tiny"]
        return loop.submit(
            Request(step=step, model=model, source=None, following=None, picture=True, watch=watch)
        )

    first = First()
    assert send(long, first).result().width == 64
    assert first.other.result().width == 72
    assert first.total == 20  # PNDM takes one more
    assert seen[0] in begins
    assert [need.size for need in aside.noted][-1] == (72, 64)


def test_a_larger_batch_is_not_compiled_while_rows_of_others_are_in_flight(
    loop: DeviceLoop, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, answers = set(), []
    aside = Aside(lambda need: need.rows == 1 or "all" in ready)
    monkeypatch.setattr(loop, "_compiling", aside)
    monkeypatch.setattr(loop, "_room", Room(None, "cpu"))  # other tests leave less
    pipe = loop._models.get(Wanted(models["tiny"]))

    class Asking(Watch):
        def report(self, done: int, total: int, *_: Any) -> None:
            if done == 0:
                return  # they may begin together
            alone = len(loop._begun) == 1
            may = [calls.may_compile() for calls in pipe.calls]
            ready.add("all")
            answers.append((alone, *may, pipe.predictions.may_compile()))
            ready.clear()

    def send(**values: Any) -> "Future[Rendered]":
        step = Text2Img(prompt="a cat", **{**SHORT, **values})
        model, watch = models["tiny"], Asking()
        return loop.submit(
            Request(step=step, model=model, source=None, following=None, picture=True, watch=watch)
        )

    for future in [send(num_inference_steps=60), send(width=72)]:
        future.result()
    assert {len(set(answer[1:-1])) for answer in answers} == {1}
    assert {(alone, may, then) for alone, may, *_, then in answers} == {
        (True, True, True),
        (False, False, True),
    }

"""The device loop: steps in, pictures and latents out, by one thread."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storage.errors import InvalidModel, InvalidSpec
from storage.models import Model
from storage.spec import Img2Img, Text2Img
from tests.reference.tiny import write_stable_diffusion
from worker.device import Device
from worker.device_loop import DeviceLoop, Latent, Rendered, Request, Watch
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
    vae = loop._pipelines[models["tiny"]].vae
    for name in ("encode", "decode"):
        monkeypatch.setattr(vae, name, noting(made, name, getattr(vae, name)))
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
) -> Rendered:
    return loop.submit(
        Request(
            step=step,
            model=models[step.model],
            source=source,
            following=None if following is None else (following, models[following.model]),
            picture=picture,
            watch=watch or Watch(),
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
        def on_step(self, done: int, total: int) -> None:
            seen.append((done, total))
            if done == 2:
                self.leave = Stopping("enough")
            super().on_step(done, total)

    with pytest.raises(Stopping):
        render(loop, models, Text2Img(prompt="a cat", **SHORT), watch=Impatient())
    assert seen[-1] == (2, 5)


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

"""Recipes: what becomes of an entry, and what is wrong with a recipe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from producer.datasets.entry import BadEntry, Entry
from producer.datasets.recipe import Draft, drafts, make_recipe, read_recipe
from storage.errors import InvalidSpec
from storage.spec import Img2Img

BASE: dict[str, Any] = {"model": "demo", "prompt": "{prompt}, comic style"}


def entry(picture: bool = True, **values: Any) -> Entry:
    return Entry(
        place="list.csv:2", name="a/cat", picture=Path("a/cat.png") if picture else None,
        values={"prompt": "a cat", **values},
    )  # fmt: skip


def strengths(draft: Draft) -> list[float | None]:
    return [getattr(step, "strength", None) for step in draft.steps]


def made(recipe: dict[str, Any], given: Entry) -> list[Draft]:
    found = list(drafts(make_recipe({**BASE, **recipe}), given))
    assert not [each for each in found if isinstance(each, BadEntry)], found
    return [each for each in found if isinstance(each, Draft)]


def test_a_template_names_columns_and_a_column_sets_the_field_of_its_name() -> None:
    (draft,) = made({"strength": 0.6}, entry(strength="0.4", other="x"))
    (step,) = draft.steps
    assert isinstance(step, Img2Img)
    assert (step.prompt, step.strength) == ("a cat, comic style", 0.4)


def test_an_entry_without_a_picture_begins_with_its_prompt() -> None:
    (draft,) = made({"strength": 0.6, "steps": [{}, {"strength": 0.5}]}, entry(picture=False))
    assert [step.kind for step in draft.steps] == ["text2img", "img2img"]
    assert strengths(draft) == [None, 0.5]


def test_a_chain_shares_what_its_steps_do_not_set() -> None:
    chain = {"steps": [{"prompt": "{prompt}, pencil"}, {"model": "sd15", "strength": 0.3}]}
    (draft,) = made({**chain, "strength": 0.7}, entry())
    assert [(s.model, s.prompt) for s in draft.steps] == [
        ("demo", "a cat, pencil"), ("sd15", "a cat, comic style"),
    ]  # fmt: skip
    assert strengths(draft) == [0.7, 0.3]


def test_variants_are_all_combinations_and_each_has_a_name_of_its_own() -> None:
    found = made({"variants": {"strength": [0.4, 0.6], "seed": [1, 2]}}, entry(strength=0.9))
    assert [draft.variant for draft in found] == [
        "strength-0.4.seed-1", "strength-0.4.seed-2", "strength-0.6.seed-1", "strength-0.6.seed-2",
    ]  # fmt: skip
    assert [(*strengths(d), d.steps[0].seed) for d in found] == [
        (0.4, 1), (0.4, 2), (0.6, 1), (0.6, 2),
    ]  # fmt: skip


def test_values_that_make_no_name_are_called_by_their_place_in_the_list() -> None:
    found = made(
        {"variants": {"prompt": ["{prompt}, ink/wash", "{prompt}, a very long text"]}}, entry()
    )
    assert [draft.variant for draft in found] == ["prompt-0", "prompt-1"]
    assert found[0].steps[0].prompt == "a cat, ink/wash"


def test_copies_differ_by_nothing_but_their_number() -> None:
    first, second = made({}, replace(entry(), copies=2))
    assert (first.variant, second.variant) == ("0", "1")
    assert first.steps == second.steps
    assert (first.copy, second.copy) == (0, 1)


def test_copies_count_on_from_a_seed_that_is_given() -> None:
    found = made({"seed": 7}, replace(entry(), copies=3))
    assert [draft.steps[0].seed for draft in found] == [7, 8, 9]


def test_columns_of_other_names_are_mapped() -> None:
    (draft,) = made({"columns": {"caption": "prompt"}, "prompt": "x"}, entry(caption="a dog"))
    assert draft.steps[0].prompt == "a dog"
    recipe = {"columns": {"caption": "prompt"}, "prompt": "{caption} and {prompt}"}
    (draft,) = made(recipe, entry(caption="a dog"))
    assert draft.steps[0].prompt == "a dog and a dog"


def test_a_column_with_null_sets_nothing() -> None:
    recipe = {"columns": {"width": None}, "prompt": "{prompt}, {width} wide"}
    (draft,) = made(recipe, entry(width="1023"))
    assert (draft.steps[0].width, draft.steps[0].prompt) == (None, "a cat, 1023 wide")


def test_labels_may_name_columns() -> None:
    (draft,) = made({"labels": {"class": "{label}"}}, entry(label=3))
    assert draft.labels == {"class": "3"}


def test_a_cell_is_never_a_template() -> None:
    (draft,) = made({"prompt": "x"}, entry(prompt="a {secret} cat"))
    assert draft.steps[0].prompt == "a {secret} cat"
    (draft,) = made({"prompt": "{{{prompt}}}"}, entry(prompt="{x}"))
    assert draft.steps[0].prompt == "{{x}}"


@pytest.mark.parametrize(
    ("recipe", "values", "reason"),
    [
        (
            {"prompt": "{text}"},
            {},
            "prompt: '{text}' names the column 'text', which is missing or empty",
        ),
        ({}, {"strength": "much"}, "strength: "),
        ({}, {"strength": 7}, "strength: "),
        ({"steps": [{}, {"strength": 2.0}]}, {}, "steps.1.strength: "),
        ({"prompt": "{label}"}, {"label": "\t"}, "prompt: it is empty"),
        ({}, {"scheduler": "Nope"}, "scheduler: 'Nope' is not one of"),
    ],
)
def test_an_entry_that_cannot_be_is_bad_with_its_reason(
    recipe: dict[str, Any], values: dict[str, Any], reason: str
) -> None:
    (bad,) = drafts(make_recipe({**BASE, **recipe}), entry(**values))
    assert isinstance(bad, BadEntry)
    assert bad.place == "list.csv:2"
    assert bad.reason.startswith(reason)
    assert (bad.code, bad.entry and bad.entry.name) == ("invalid_spec", "a/cat")


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ({"strenght": 1}, "strenght: no such field"),
        ({"steps": [{"strenght": 1}]}, r"steps\.0\.strenght: no such field"),
        ({"steps": [{}] * 17}, "steps: .*at most 16"),
        ({"variants": {"sed": [1]}}, r"variants\.sed: no such field"),
        ({"variants": {"seed": [*range(40)], "strength": [0.5] * 40}}, "1600 combinations"),
        ({"priority": 1000}, "priority: "),
        ({"labels": {"": "x"}}, "labels"),
        ({"variants": {"seed": []}}, r"variants\.seed: it must list at least one value"),
        ({"columns": {"a": "promt"}}, r"columns\.a: 'promt' is no field of a step"),
        ({"prompt": "a { cat"}, "has a lone '{'"),
        ({"image": "a.png"}, "image: no such field"),
        ({"shared": {}}, "shared: no such field"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_field(recipe: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        make_recipe({**BASE, **recipe})


def test_a_recipe_is_a_file_of_yaml(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("model: demo\nprompt: '{prompt}'\nvariants:\n  seed: [1, 2]\n")
    assert read_recipe(file).variants == {"seed": [1, 2]}
    file.write_text("model: [")
    with pytest.raises(InvalidSpec, match=r"recipe\.yaml: not YAML"):
        read_recipe(file)
    file.write_text("- 1")
    with pytest.raises(InvalidSpec, match="it must hold fields"):
        read_recipe(file)
    with pytest.raises(InvalidSpec, match="No such file"):
        read_recipe(tmp_path / "none.yaml")
    file.write_text("model: !!python/object/apply:os.system [ls]\n")
    with pytest.raises(InvalidSpec, match="not YAML"):
        read_recipe(file)


def test_a_recipe_is_kept_in_the_form_in_which_it_is_read() -> None:
    values = {**BASE, "steps": [{"strength": 0.5}], "variants": {"seed": [1]}, "labels": {"a": "b"}}
    assert make_recipe(values).plain() == values
    assert make_recipe(make_recipe(values).plain()) == make_recipe(values)

"""A recipe: what the entries of a dataset have in common, and what becomes of each."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from producer.datasets.entry import BadEntry, Entry
from producer.datasets.template import Template
from storage.errors import InvalidSpec
from storage.spec import MAX_SEED, MAX_STEPS_IN_CHAIN, Img2Img, Spec, Step, Text2Img, explained

#: Fields that a recipe does not set: they come from the entry, or from where a step stands.
NOT_SHARED = ("kind", "image")
FIELDS = frozenset(Img2Img.model_fields) - set(NOT_SHARED)
#: Fields that a step from a prompt alone does not have.
OF_PICTURES = frozenset(Img2Img.model_fields) - frozenset(Text2Img.model_fields)
#: One entry leads to so many jobs at most.
MOST_VARIANTS = 1000
#: Characters of a variant's name.
LONGEST_MARK = 200
#: How a column is named that holds the picture.
PICTURE = "image"
#: Values that stand in a variant's name as they are; others do by their place in the list.
_PLAIN = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,39}")

Values = dict[str, Any]


class Recipe(BaseModel):
    """Fields of a step, shared by all entries, and how entries and steps differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Fields that hold for each step; a text may name columns: `"{prompt}, comic style"`.
    shared: Values = Field(default_factory=dict)
    #: A chain: what each step has over the shared fields. Empty: one step.
    steps: Annotated[tuple[Values, ...], Field(max_length=MAX_STEPS_IN_CHAIN)] = ()
    #: Lists of values for shared fields; each combination is a job.
    variants: dict[str, list[Any]] = Field(default_factory=dict)
    #: The field that a column sets, where they have different names: `caption: prompt`. `image`
    #: is the picture, and a column with null sets nothing, whatever its name.
    columns: dict[str, str | None] = Field(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    priority: int = 0
    max_attempts: int = 3
    keep_steps: bool = False
    check_output: bool = True

    @property
    def picture_column(self) -> str | None:
        """The column that holds the picture, where the recipe says which."""
        return next((name for name, field in self.columns.items() if field == PICTURE), None)

    @cached_property
    def combinations(self) -> list[tuple[str, Values]]:
        """The variants: what each is called, and its fields."""
        lists = []
        for name, choices in self.variants.items():
            texts = [str(choice) for choice in choices]
            plain = all(_PLAIN.fullmatch(text) for text in texts) and len(set(texts)) == len(texts)
            marks = [f"{name}-{text if plain else index}" for index, text in enumerate(texts)]
            lists.append([(m, name, choice) for m, choice in zip(marks, choices, strict=True)])
        return [
            (".".join(mark for mark, _, _ in each), {name: value for _, name, value in each})
            for each in itertools.product(*lists)
        ]

    @cached_property
    def templates(self) -> "Templates":
        """Raises InvalidSpec for a text that is no template."""
        return Templates(
            shared=Template(self.shared),
            steps=tuple(map(Template, self.steps or ({},))),
            labels=Template(self.labels),
            variants=tuple((mark, Template(chosen)) for mark, chosen in self.combinations),
        )

    def plain(self) -> Values:
        """Plain values that `make_recipe` makes it of again."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        shared: Values = values.pop("shared", {})
        return shared | values


@dataclass(frozen=True, kw_only=True)
class Templates:
    """The parts of a recipe, to be filled in for each row."""

    shared: Template
    steps: tuple[Template, ...]
    labels: Template
    #: What each combination is called, and its fields.
    variants: tuple[tuple[str, Template], ...]


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One job that an entry leads to: all of its spec but the picture's key and open seeds."""

    entry: Entry
    #: Such as `strength-0.4.seed-7`; empty where there is but one.
    variant: str
    steps: tuple[Step, ...]
    labels: Mapping[str, str]
    #: Which of the jobs that nothing tells apart but their seeds.
    copy: int = 0


def read_recipe(file: Path) -> Recipe:
    """A recipe from YAML or JSON. Raises InvalidSpec, naming the field."""
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except OSError as error:
        raise InvalidSpec(f"{file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidSpec(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise InvalidSpec(f"{file}: it must hold fields: model: …, prompt: …")
    try:
        return make_recipe(found)
    except InvalidSpec as error:
        raise InvalidSpec(f"{file}: {error}") from None


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values, a step's fields among the recipe's own. Raises InvalidSpec."""
    shared = {name: value for name, value in values.items() if name in FIELDS}
    rest = {name: value for name, value in values.items() if name not in FIELDS}
    if "shared" in rest:
        raise InvalidSpec("shared: no such field")
    with explained():
        recipe = Recipe(shared=shared, **rest)
    for index, step in enumerate(recipe.steps):
        for name in step.keys() - FIELDS:
            raise InvalidSpec(f"steps.{index}.{name}: no such field")
    for name, field in recipe.columns.items():
        if field not in (*FIELDS, PICTURE, None):
            raise InvalidSpec(f"columns.{name}: {field!r} is no field of a step")
    for name, choices in recipe.variants.items():
        if name not in FIELDS:
            raise InvalidSpec(f"variants.{name}: no such field")
        if not choices:
            raise InvalidSpec(f"variants.{name}: it must list at least one value")
    if (count := math.prod(len(each) for each in recipe.variants.values())) > MOST_VARIANTS:
        raise InvalidSpec(f"variants: {count} combinations are more than {MOST_VARIANTS}")
    if max(len(mark) for mark, _ in recipe.combinations) > LONGEST_MARK:
        raise InvalidSpec("variants: too many fields to tell in a file's name")
    _check_around(recipe)
    _ = recipe.templates  # raises where one is wrong
    return recipe


def drafts(recipe: Recipe, entry: Entry) -> Iterator[Draft | BadEntry]:
    """The jobs that an entry leads to; those that cannot be are bad entries with their reasons.

    A column with the name of a field sets it, unless the recipe's own value is a text that names
    columns. A step's own fields win over shared ones, a variant's over both.
    """
    fields: Values = {}
    for name, value in entry.values.items():
        if (field := recipe.columns.get(name, name)) is not None:
            fields[field] = value
    # A template may use either name of a column.
    values = {**entry.values, **fields}
    for mark, chosen in recipe.templates.variants:
        try:
            steps = tuple(_steps(recipe, entry, fields, values, chosen))
            named = recipe.templates.labels.filled(values)
            labels = {name: str(text) for name, text in named.items()}
        except InvalidSpec as error:
            yield BadEntry(
                place=entry.place, reason=str(error), code=error.code, entry=entry, variant=mark
            )
            continue
        for copy in range(entry.copies):
            yield Draft(
                entry=entry,
                variant=".".join(filter(None, (mark, *[str(copy)] * (entry.copies > 1)))),
                steps=tuple(_again(step, copy) for step in steps) if copy else steps,
                labels=labels,
                copy=copy,
            )


def _again(step: Step, copy: int) -> Step:
    """The step of another copy: a seed that was given counts on."""
    if step.seed is None:
        return step
    return step.model_copy(update={"seed": (step.seed + copy) % (MAX_SEED + 1)})


def _steps(
    recipe: Recipe, entry: Entry, set_by_row: Values, values: Values, variant: Template
) -> Iterator[Step]:
    shared, open_ = recipe.templates.shared, recipe.templates.shared.open
    own = {n: value for n, value in set_by_row.items() if n in FIELDS and n not in open_}
    for index, step in enumerate(recipe.templates.steps):
        # A row's own texts are not looked into: only the recipe's name columns.
        fields = {**shared.filled(values), **own, **step.filled(values), **variant.filled(values)}
        from_picture = index > 0 or entry.picture is not None
        if not from_picture:
            fields = {name: value for name, value in fields.items() if name not in OF_PICTURES}
        prefix = f"steps.{index}." if len(recipe.steps) > 1 else ""
        try:
            made = make_loose_step(from_picture, fields)
            if not made.prompt.strip() and "prompt" in fields and fields["prompt"] != "":
                raise InvalidSpec("prompt: it is empty")
            yield made
        except InvalidSpec as error:
            raise InvalidSpec(f"{prefix}{error}") from None


def make_loose_step(from_picture: bool, fields: Values) -> Step:
    """A checked step; texts of a table may stand for numbers."""
    kind: type[Img2Img] | type[Text2Img] = Img2Img if from_picture else Text2Img
    with explained():
        return kind.model_validate(fields, strict=False)


def _check_around(recipe: Recipe) -> None:
    """What holds for whole jobs must do for one that asks for nothing special."""
    step = Text2Img(model="any", prompt="any")
    with explained():
        Spec(
            steps=(step,),
            priority=recipe.priority,
            max_attempts=recipe.max_attempts,
            labels=dict.fromkeys(recipe.labels, "any"),
        )

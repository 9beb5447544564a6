"""One sentence in place of the parser's page: what was given, what is allowed, and the nearest valid name."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ganzoo.cli import recipes
from ganzoo.cli.arguments import Request
from ganzoo.cli.places import Places, class_named, class_names, option_names
from ganzoo.cli.words import did_you_mean, nearest


def sentence(message: str, request: Request, options: Iterable[str] = ()) -> str:
    """What is wrong, in one sentence.

    Args:
        message: The parser's.
        request: What it could not accept.
        options: Names of all plain options, without dashes.
    """
    places = Places(request)
    if found := _glued(places) or _overlay_first(request):
        return found
    for pattern, explain in _RULES:
        if match := re.search(pattern, message, re.MULTILINE):
            return explain(match, places, list(options))
    return one_line(message)


def _glued(places: Places) -> str | None:
    """About a table such as {4:7}, in which YAML sees no value, and whose keys it may take for a time of day."""
    for option, given in places.given():
        if re.fullmatch(r"\{.*\}", given) and re.search(r"[{,]\s*\w+:\S", given):
            spaced = re.sub(r"\s*,\s*", ", ", re.sub(r"(?<=\w):(?=\S)", ": ", given))
            return f"{given} ({option}) has no space behind a colon, as YAML needs: write '{spaced}'."
    return None


def _overlay_first(request: Request) -> str | None:
    """About an overlay in the place of the recipe that it changes."""
    first = next(iter(request.all_configs), None)
    about = recipes.summary(first) if first else ""
    if not about.startswith("overlay") or any(option.partition("=")[0] == "--model" for option in request.arguments):
        return None
    named = [str(path) for path in request.all_configs if _names_a_model(recipes.load(path).get("model"))]
    name = [*named, *re.findall(r"[\w-]+\.yaml", about), "RECIPE.yaml"][0]
    return (
        f"{first} is an overlay, which changes a recipe: give that before it, as in --config {name} --config {first}."
    )


def _names_a_model(content: object) -> bool:
    return isinstance(content, str) or (isinstance(content, dict) and "class_path" in content)


def one_line(text: str, limit: int = 300) -> str:
    """The text without its line breaks, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."


def _required(found: re.Match[str], places: Places, options: list[str]) -> str:
    missing = " and ".join(sorted(found[1].split(", "), reverse=True)).replace("model", "a model")
    return (
        f"A run needs {missing}: give --config with a recipe, such as quickstart.yaml, or for example "
        "--model DCGAN --data Digits (ganzoo list shows all)."
    )


def _needs(found: re.Match[str], places: Places, options: list[str]) -> str:
    return f"{places.where(found[1])} needs a value for {found[2]}: give --{places.path(found[1])}.{found[2]}."


def _unrecognized(found: re.Match[str], places: Places, options: list[str]) -> str:
    given = found[1].split()[0].partition("=")[0]
    if given.endswith((".yaml", ".yml")) and not given.startswith("-"):
        return f"{given!r} was not expected: a recipe is given as --config {given}."
    if not given.startswith("-"):
        return f"{given!r} was not expected: options are written as --name value."
    wanted = given.lstrip("-")
    inside = [
        f"--{owner}.{wanted}" for owner in ("model", "data", "trainer") if wanted in _names_of(owner, places, options)
    ]
    if inside:
        return f"There is no option {given}: did you mean {' or '.join(inside)}?"
    group, dot, rest = wanted.partition(".")
    if dot and group not in _groups(options) and (near := nearest(group, _groups(options))):
        return f"There is no option {given}: did you mean --{near}.{rest}?"
    return f"There is no option {given}{did_you_mean(given, [f'--{name}' for name in options], _HELP)}"


def _denied(found: re.Match[str], places: Places, options: list[str]) -> str:
    module = found[1].rpartition(".")[0]
    return (
        f"The class {found[1]}{places.naming(found[1])} belongs neither to ganzoo nor to a module that you named: if "
        f"you trust it, add --import {module}."
    )


def _unknown_class(found: re.Match[str], places: Places, options: list[str]) -> str:
    name, at = found[1].rpartition(".")[2], places.naming(found[1])
    setting = re.findall(r"\w+", at.partition(" in ")[0])
    kind = class_named(_CLASSES.get(setting[-1], "")) if setting else None
    fitting = class_names(kind) if kind else []
    known = fitting if nearest(name, fitting) else class_names()
    return f"There is no class {found[1]}{at}{did_you_mean(name, known, _LIST)}"


def _unknown_key(found: re.Match[str], places: Places, options: list[str]) -> str:
    key = found[1].split(".")[0]
    if key == "class_path":
        beside = places.beside_class_path()
        return f"{beside} is beside class_path: options of a class belong into its init_args."
    place = places.find(key)
    if place is None:
        return f"There is no setting {found[1]}{did_you_mean(key, options, _HELP)}"
    if not place.source and (of_member := _of_member(place.path, places)):
        return of_member
    if place.owner is None:
        names = [*_groups(options), *place.others]
        return f"There is no setting {place.path}{place.source}{did_you_mean(key, names, _HELP)}"
    if why_not := getattr(place.owner, "why_not", {}).get(key):
        return f"{place.path} was given{place.source}, but {place.owner.__name__} {why_not}."
    names = option_names(place.owner)
    allowed = f"{place.owner.__name__} takes {', '.join(names) or 'none'}"
    if len(names) > 12:
        allowed = f"see ganzoo fit --{place.path.split('.')[0]}.help {place.owner.__name__}"
    return f"There is no setting {place.path}{place.source}{did_you_mean(key, [*names, *place.others], allowed)}"


def _unknown_in_group(found: re.Match[str], places: Places, options: list[str]) -> str:
    group, key = found[1], found[2].split(".")[0]
    names = [name.removeprefix(f"{group}.") for name in options if name.startswith(f"{group}.")]
    return f"There is no setting {places.where(key)}{did_you_mean(key, names, _HELP)}"


def _wrong_value(found: re.Match[str], places: Places, options: list[str]) -> str:
    return _must_be(found[1], found[3], [found[2]], places)


def _wrong_union(found: re.Match[str], places: Places, options: list[str]) -> str:
    return _must_be(found[1], found[3], re.split(r", (?![^\[]*\])", found[2]), places)


def _names_of(owner: str, places: Places, options: list[str]) -> list[str]:
    """Options of the trainer, of every model or of every data set, without their place."""
    if owner == "trainer":
        return [name.removeprefix("trainer.") for name in options if name.startswith("trainer.")]
    return _COMMON[owner]


def _must_be(name: str, value: str, types: list[str], places: Places) -> str:
    """A sentence about a value of the wrong type."""
    if nested := re.fullmatch(r"NestedArg\(key='(\w+)', val='([^']*)'\)", value):  # an option of a class
        key, given = nested.groups()
        path = places.path(key)
        return _of_member(path, places) or (
            f"{path} was {given}, but must be a list: append to it by --{path}+={given}, or write a list in YAML."
        )
    choices: dict[str, None] = {}
    kinds: dict[str, None] = {}
    for kind in types:
        if literal := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
            choices |= dict.fromkeys(choice.strip(" '\"") for choice in literal[1].split(","))
        else:
            kinds[_kind(kind)] = None
    allowed = [*([f"one of {', '.join(choices)}"] if choices else []), *kinds]
    must_be = f"must be {', or '.join(allowed)}{did_you_mean(value, choices)}"
    return f"{places.where(name, value)} was {value}, but {must_be}"


def _of_member(path: str, places: Places) -> str | None:
    """About an option that some member of a list has, but that was given as one of the list."""
    of, _, key = path.rpartition(".")
    wanted = " or ".join(f"--{of}.{owner}.{key}" for owner in places.members(of, key))
    return f"{of} is a list, so --{path} does not say of which member: give {wanted}." if wanted else None


def _no_value(found: re.Match[str], places: Places, options: list[str]) -> str:
    return f"{places.without_value(found[1])} needs a value."


def _kind(text: str) -> str:
    """A type as a user would say it."""
    name = re.sub(r"<class '([^']*)'>", r"\1", text.strip())
    if re.fullmatch(r"dict\[int, (int|float)\]", name):
        return "a table such as '{4: 32, 8: 16}'"
    return "a list" if name.startswith(("tuple[", "list[")) else _KINDS.get(name, name.rpartition(".")[2])


def _groups(options: list[str]) -> list[str]:
    return list(dict.fromkeys(name.split(".")[0] for name in options))


#: Bases of the classes that settings take.
_CLASSES = {"model": "GAN", "data": "GANDataModule", "loss": "AdversarialLoss", "penalties": "Penalty", "parts": "Part"}

#: What is often given without its place.
_COMMON = {
    "model": ["total_kimg", "loss", "penalties", "width", "latent_dim", "accumulate", "ema", "play", "stages", "parts"],
    "data": ["batch_size", "num_workers", "labels", "image_size", "path", "split", "mirror", "channels"],
}

_HELP, _LIST = "see ganzoo fit --help", "see ganzoo list"

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
    "ganzoo.schedules.Schedule": "a Schedule",
}

#: The most telling part of a message first: it repeats what it was given in many ways.
_RULES = (
    (r"^the following arguments are required: (.*)$", _required),
    (r"^unrecognized arguments: (.*)$", _unrecognized),
    (r"Importing '([\w.]+)' is not allowed", _denied),
    (r"Group '([\w.]+)' does not accept option '([\w.]+)'", _unknown_in_group),
    (r"Option '([\w.+]+)' is not accepted", _unknown_key),
    (r"Expected a dot import path string: ([A-Za-z_]\w*)$", _unknown_class),
    (r'Parser key "([\w.]+)":(?:(?!Parser key)[\s\S])*arguments are required: ([\w.]+)', _needs),
    (r'Parser key "([\w.]+)":\s+Expected a (.*?)\. Got value: (.*)$', _wrong_value),
    (r'[\s\S]*Parser key "([\w.]+)":[\s\S]*?Subtypes: \[(.*)\]$[\s\S]*?Given value: (.*)$', _wrong_union),
    (r"Problem with given class_path '([\w.]+)'", _unknown_class),
    (r"^argument (--[\w.]+): expected one argument", _no_value),
)

"""``--extractor CLASS --extractor.NAME VALUE`` of commands that compare features."""

from __future__ import annotations

from collections.abc import Sequence

from ganzoo.cli import explain, trust
from ganzoo.cli.arguments import Request
from ganzoo.cli.places import class_names
from ganzoo.cli.words import did_you_mean
from ganzoo.errors import UserError
from ganzoo.metrics.extractors.base import Extractor


def parse(words: Sequence[str], imports: Sequence[str], command: str) -> Extractor:
    """The extractor that options describe.

    Args:
        words: ``--extractor=CLASS``, or a file of ``ganzoo extractor`` or a shipped one in place of the class, and
            options.
        imports: Modules that the user named.
        command: For the messages.

    Raises:
        UserError: For what is not accepted, in one sentence.
    """
    from ganzoo.cli.parser import ParseError, Parser, load_parts  # a second, so only where it is used

    words = list(words)
    named = words[0].partition("=")[2]
    if named.endswith(".pt") or named == "digits-cnn":
        words[:1] = ["--extractor=Domain", f"--extractor.path={named}"]
    load_parts()
    known = class_names(Extractor)
    if words[0].startswith("--extractor=") and "." not in named and named not in ("digits-cnn", *known):
        allowed = f"give a file .pt that ganzoo extractor wrote, digits-cnn, or one of {', '.join(known)}"
        raise UserError(f"--extractor {named} is no file and no extractor{did_you_mean(named, known, allowed)}")
    trust.restrict_parser(imports)
    parser = Parser(prog=command, allow_abbrev=False)
    parser.add_subclass_arguments(Extractor, "extractor", required=True)
    try:
        found: Extractor = parser.instantiate(parser.parse_args(words))["extractor"]
    except ParseError as error:
        raise UserError(explain.sentence(str(error), Request(words), ["extractor"])) from error
    return found

"""Records: read as they were written, compared only where the protocol is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ganzoo import files
from ganzoo.errors import UserError
from ganzoo.metrics import record
from ganzoo.metrics.protocol import Protocol
from ganzoo.metrics.record import Record, Score
from tests.metrics.fakes import linear
from tests.mutants import kills

ONE = Record(
    "dcgan-1/last.ckpt",
    Protocol("nvidia", extractor="inception-tf2015", reference_hash="c" * 64),
    {"fid": Score(12.5), "kid": Score(0.01, 0.002, (0.008, 0.012)), "is": Score(8.0, 0.1)},
    kimg=200.5,
    hashes={"checkpoint": "d" * 64},
    facts={"model": "DCGAN"},
)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record.save([ONE, replace(ONE, kimg=None)], tmp_path / "a.json")
    assert record.load(tmp_path / "a.json") == [ONE, replace(ONE, kimg=None)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    again = (tmp_path / "a.json").read_text()
    record.save([ONE, replace(ONE, kimg=None)], tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == again  # no date
    assert json.loads(again)[0]["protocol"]["id"] == ONE.protocol.id


def refuses_other_protocols(compare: Callable[[Sequence[Record]], str]) -> None:
    other = replace(ONE, subject="sngan-1", protocol=replace(ONE.protocol, num=10_000, seed=3))
    message = ""
    try:
        compare([ONE, ONE, other])
    except UserError as error:
        message = str(error)
    assert message == (
        f"dcgan-1/last.ckpt and sngan-1 were measured by different protocols ({ONE.protocol.label} and "
        f"{other.protocol.label}), so their scores cannot be compared: The number of samples is 50,000 and 10,000. "
        "The seed is 0 and 3."
    )


def compare_names(records: Sequence[Record]) -> str:
    """Wrong: the preset's name says nothing of what was changed."""
    if len({one.protocol.name for one in records}) > 1:
        raise UserError("different")
    return record.table(records)


def test_records_of_different_protocols_are_not_compared() -> None:
    refuses_other_protocols(record.compare)
    kills(refuses_other_protocols, compare_names)
    kills(refuses_other_protocols, lambda records: record.compare(records[:2]))  # looks at neighbours of the first only


def never_mixes(tables: Callable[[Sequence[Record]], str]) -> None:
    """A column holds scores of the protocol that stands above it, whatever the order of the records."""
    short = replace(ONE, subject="cut short", protocol=replace(ONE.protocol, num=20))
    blocks = tables([ONE, short, replace(ONE, subject="again")]).split("Protocol ")
    assert [block.split("\n")[0] for block in blocks] == ["", ONE.protocol.label, short.protocol.label]
    assert ["cut short" in block for block in blocks] == [False, False, True]
    assert ["again" in block for block in blocks] == [False, True, False]


def test_tables_of_several_protocols_are_apart() -> None:
    never_mixes(record.tables)
    kills(never_mixes, lambda records: f"Protocol {records[0].protocol.label}\n\n{record.table(records)}")


def test_the_table_has_a_row_per_record_and_a_column_per_score() -> None:
    other = replace(ONE, subject="made", kimg=None, scores={"fid": Score(30.0), "precision": Score(0.5)})
    assert record.compare([ONE, other]).splitlines() == [
        f"Protocol nvidia {ONE.protocol.id}",
        "",
        "| | kimg | fid | kid | is | precision |",
        "|---|---|---|---|---|---|",
        "| dcgan-1/last.ckpt | 200.5 | 12.5 | 0.01 [0.008, 0.012] | 8 ± 0.1 |  |",
        "| made |  | 30 |  |  | 0.5 |",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no JSON"),
        ("{}", "holds no score records"),
        ("[1]", "holds no score records"),
        ('[{"format": 9}]', "no score record of format 1"),
        ('[{"format": 1, "subject": "x"}]', "no whole score record"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        record.load(tmp_path / "a.json")


def test_a_record_that_was_touched_is_refused(tmp_path: Path) -> None:
    record.save([ONE], tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text()
    (tmp_path / "a.json").write_text(text.replace('"num": 50000', '"num": 10000'))
    with pytest.raises(UserError, match="The protocol of this record was changed"):
        record.load(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"b.json cannot be read \(no such file"):
        record.load(tmp_path / "b.json")


def test_hashes_of_a_model(tmp_path: Path) -> None:
    hashes, facts = record.describe(linear())
    assert facts["model"] == "GAN" and facts["has_average"]
    assert "config" not in hashes  # its generator has no plain form
    (tmp_path / "x").write_bytes(b"abc")
    assert files.sha256(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()

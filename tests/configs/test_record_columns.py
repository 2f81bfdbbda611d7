"""Columns of images and series in a study: their keys, their shapes, and what does not fit together."""

from typing import Any

import pytest

from configs.errors import ConfigError
from tests import builders

PICTURE = {"type": "image", "reader": "png", "size": [33, 33]}


def problems(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        builders.study(**changes)
    return str(caught.value)


def test_a_textured_image_is_named_numbers_of_public_range_beside_other_columns() -> None:
    columns = {"age": {"type": "number", "range": [20, 90]}, "scan": PICTURE | {"encoder": "texture", "channels": 2}}
    study = builders.study(features=columns)
    assert study.input_shape is None
    assert study.data == "table"
    assert study.inputs[:3] == ("age", "scan.texture.0", "scan.texture.1")
    assert len(study.inputs) == 1 + 2 * 189
    assert {(column.minimum, column.maximum) for column in study.predictors[1:]} == {(-1.0, 1.0)}
    assert [record.name for record in study.records] == ["scan"]


def test_what_is_written_reads_back() -> None:
    image = PICTURE | {"encoder": "texture", "window": [-1000, 400], "channels": 1}
    assert builders.study(features={"scan": image}).to_dict()["features"] == {
        "scan": image | {"window": [-1000.0, 400.0]}
    }


def test_a_kits_reader_and_encoder_need_no_kit_to_be_read() -> None:
    kits = PICTURE | {"reader": "retina/tiff", "encoder": "retina/net", "numbers": 7}
    assert builders.study(features={"scan": kits}).inputs[-1] == "scan.net.6"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (PICTURE | {"reader": "pgn"}, "did you mean 'png'?"),
        (PICTURE | {"size": [8, 8, 8]}, "features.scan.reader: expected one for records of 3 axes"),
        (PICTURE | {"size": [0, 8]}, "features.scan.size: expected a list of two or three sides from 1 to 2048"),
        (PICTURE | {"encoder": "retina/net"}, "features.scan.numbers: expected how many numbers"),
        (PICTURE | {"range": [0, 1]}, "features.scan.range: unknown key"),
        (PICTURE | {"reader": "npy", "size": [2048, 2048, 2048]}, "found more; make it smaller"),
        (PICTURE, "logistic reads rows of numbers, found features that are images of two axes"),
        ({"type": "series", "reader": "csv", "length": 50}, "found features that are series; choose another model"),
    ],
)
def test_what_does_not_fit_is_said_by_its_key(image: dict[str, Any], expected: str) -> None:
    assert expected in problems(features={"scan": image})


def test_a_record_without_an_encoder_stands_alone_and_is_never_counted() -> None:
    age = {"type": "number", "range": [20, 90]}
    assert "expected one record alone without an encoder" in problems(features={"scan": PICTURE, "age": age})
    with pytest.raises(ConfigError, match="as patients are counted, found a record"):
        builders.counting(features={"scan": PICTURE | {"encoder": "texture"}})

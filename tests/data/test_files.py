"""Texts, pairs and dialogues read from files."""

import json
import logging

import pytest
from datasets import Dataset

from hf_vae.data import (
    expand_all_pairs,
    expand_both_ways,
    expand_targets,
    held_out_files,
    load_dialogs,
    load_pairs,
    load_texts,
    pairs_of,
    stream_pairs,
    texts_of,
)


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return str(path)


def test_json_lines_with_one_or_many_targets(tmp_path):
    many = write(tmp_path / "many.jsonl", [{"source": "a b", "targets": ["c", "d"]}, {"source": "e", "targets": ["f"]}])
    assert list(load_pairs(many)) == [{"source": "a b", "targets": ["c", "d"]}, {"source": "e", "targets": ["f"]}]
    assert list(load_pairs(many, max_rows=1)) == [{"source": "a b", "targets": ["c", "d"]}]
    one = write(tmp_path / "one.jsonl", [{"q": "a", "p": "b"}])
    assert list(load_pairs(one, source_column="q", target_column="p")) == [{"source": "a", "targets": ["b"]}]
    assert [row["target"] for row in expand_targets(load_pairs(many))] == ["c", "d", "f"]


@pytest.mark.parametrize("suffix, separator", [("csv", ","), ("tsv", "\t")])
def test_tables(tmp_path, suffix, separator):
    path = tmp_path / f"pairs.{suffix}"
    path.write_text(f"source{separator}targets\nhow far is it{separator}what is the distance\n", encoding="utf-8")
    assert list(load_pairs(str(path))) == [{"source": "how far is it", "targets": ["what is the distance"]}]


def test_copies_are_left_out_and_said(tmp_path, caplog):
    path = write(tmp_path / "copies.jsonl", [{"source": "a", "targets": ["a ", "b"]}, {"source": "c", "targets": ["c"]}])
    with caplog.at_level(logging.WARNING):
        assert list(load_pairs(path)) == [{"source": "a", "targets": ["b"]}]
    assert "left out 2 target(s)" in caplog.text


def test_blanks_around_a_text_are_not_part_of_it(tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [{"source": " a ", "targets": ["b . ", "\tc", "a "]}])
    assert list(load_pairs(pairs)) == [{"source": "a", "targets": ["b .", "c"]}]
    turns = [{"speaker": "A ", "text": " hi ", "references": [" yes ", "no"]}, {"speaker": " B", "text": "yes ", "act": " agree"}]
    row = {"turns": turns, "response_speaker": " A", "response": " bye ", "act": "part "}
    dialogs = write(tmp_path / "dialogs.jsonl", [{"turns": turns}, row])
    test, answered = load_dialogs(dialogs)
    assert test["source"]["messages"] == [{"role": "A", "content": "hi"}] and test["targets"] == ["yes", "no"]
    assert (test["source"]["role"], test["source"]["act"]) == ("B", "agree")
    assert [turn["content"] for turn in answered["source"]["messages"]] == ["hi", "yes"] and answered["targets"] == ["bye"]
    assert (answered["source"]["role"], answered["source"]["act"]) == ("A", "part")


@pytest.mark.parametrize(
    "rows, message",
    [
        ([{"text": "a"}], "has no column source, targets; it has text"),
        ([{"source": "a", "targets": ["b"]}, {"source": " ", "targets": ["b"]}], "Row 1 of .* has no text in `source`"),
        ([{"source": "a", "targets": [""]}], "Row 0 of .* has no text in `targets`"),
        ([{"source": "a", "targets": []}], "Row 0 of .* has no text in `targets`"),
        ([{"source": "a", "targets": ["a"]}], "holds no pair of a source and a different target"),
    ],
)
def test_bad_files_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load_pairs(write(tmp_path / "bad.jsonl", rows))


def test_a_missing_file_is_no_dataset_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.jsonl"):
        load_pairs(str(tmp_path / "none.jsonl"))


def test_all_pairs_of_a_row_s_texts(tmp_path):
    captions = ["a", "b", "c", "d", "e"]
    path = write(tmp_path / "captions.jsonl", [{"source": "a", "targets": captions[1:]}, {"source": "x", "targets": ["y", "y"]}])
    pairs = [(row["source"], row["target"]) for row in expand_all_pairs(load_pairs(path))]
    # Five captions make 20 pairs, and a text that stands twice is one.
    assert sorted(pairs) == sorted([*((p, q) for p in captions for q in captions if p != q), ("x", "y"), ("y", "x")])
    assert len(expand_targets(load_pairs(path))) == 6


def test_pairs_both_ways(tmp_path):
    path = write(tmp_path / "pairs.jsonl", [{"source": "a", "targets": ["b", "c"]}, {"source": "x", "targets": ["y"]}])
    pairs = [(row["source"], row["target"]) for row in expand_both_ways(load_pairs(path))]
    assert sorted(pairs) == [("a", "b"), ("a", "c"), ("b", "a"), ("c", "a"), ("x", "y"), ("y", "x")]


@pytest.mark.parametrize(
    "name, content, texts",
    [
        ("lines.txt", "a b\r\n  c \nd", ["a b", "c", "d"]),
        ("column.jsonl", '{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ("array.json", '[{"text": "a"}, {"text": "b"}]', ["a", "b"]),
        ("captions.jsonl", '{"text": ["a", "b"]}\n{"text": ["c"]}\n', ["a", "b", "c"]),
        ("table.csv", 'id,text\n1,"a, b"\n2,NA\n3,null\n', ["a, b", "NA", "null"]),
        ("table.tsv", "id\ttext\n1\ta, b\n", ["a, b"]),
    ],
)
def test_texts_of_every_format(tmp_path, name, content, texts):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8", newline="")
    assert load_texts(str(path)) == texts


def test_the_column_and_the_number_of_rows(tmp_path):
    path = write(tmp_path / "captions.jsonl", [{"captions": ["a", "b"]}, {"captions": ["c"]}, {"captions": ["d"]}])
    assert load_texts(path, text_column="captions", max_rows=2) == ["a", "b", "c"]
    assert load_texts(path, text_column="captions", max_rows=9) == ["a", "b", "c", "d"]


def test_the_first_rows_of_a_sorted_file_are_told_of(tmp_path, caplog):
    rows = [{"text": f"{letter} text", "source": f"{letter} text", "target": "y"} for letter in "aBcDefghijklmnopqrstuvwxyz"]
    in_order = write(tmp_path / "sorted.jsonl", rows)
    mixed = write(tmp_path / "mixed.jsonl", rows[::2] + rows[1::2])
    for load, options in ((load_texts, {}), (load_pairs, {"target_column": "target"})):
        for path, count in ((mixed, 20), (in_order, None), (in_order, 30), (in_order, 19)):
            load(path, max_rows=count, **options)
        assert not caplog.messages
        load(in_order, max_rows=20, **options)
        [message] = caplog.messages
        assert (
            message.startswith("The first 20 texts of ")
            and "sorted.jsonl are in alphabetical order, from 'a text' to 't text'" in message
        )
        caplog.clear()


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("other.jsonl", '{"sentence": "a"}', r"other\.jsonl has no column text; it has sentence"),
        ("holes.txt", "a\n\nb\n  \n", r"holes\.txt has no text in 2 row\(s\), counted from 1: 2, 4\. Remove"),
        ("many.txt", "\n" * 12, r"no text in 12 row\(s\), counted from 1: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …"),
        ("missing.jsonl", '{"text": "a"}\n{"text": null}\n', r"no text in 1 row\(s\), counted from 1: 2"),
        ("captions.jsonl", '{"text": ["a", ""]}\n{"text": []}\n', r"no text in 2 row\(s\), counted from 1: 1, 2"),
        ("holes.csv", "id,text\n1,a\n2,\n", r"no text in 1 row\(s\), counted from 1: 2"),
        ("empty.txt", "", r"empty\.txt has no rows that can be read as text"),
        ("empty.jsonl", "", r"empty\.jsonl has no rows that can be read as json"),
        ("header.csv", "id,text\n", r"header\.csv has no rows that can be read as csv"),
        ("broken.jsonl", '{"text": "b"}\n{"text": "a"\n', r"Line 2 of .*broken\.jsonl is not JSON"),
        ("broken.json", '[{"text": "b"},\n{"text": "a"\n]', r"Line 3 of .*broken\.json is not JSON"),
        ("numbers.jsonl", '{"text": "a"}\n7\n', r"numbers\.jsonl has the row 7; a row must be an object"),
        ("nan.jsonl", '{"text": "a"}\n{"text": NaN}\n', r"no text in 1 row\(s\), counted from 1: 2"),
    ],
)
def test_bad_files_of_texts_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_texts(str(path))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('{"text": "a"}\n{"text": ' + "1" * 5000 + "}", "Line 2 of "),
        ('\n[{"text": "a"},\n{"text": ' + "1" * 5000 + "}]", "The array from line 2 on of "),
        ('{"text": "a"}\n{"text": ' + "[" * 200_000, "Line 2 of "),
    ],
    ids=["long number", "long number in an array", "brackets"],
)
def test_json_that_python_does_not_read_is_named(tmp_path, content, where):
    path = tmp_path / "texts.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{where}{path} holds a number or brackets that Python does not read"):
        load_texts(str(path))


def test_a_missing_file_of_texts_is_no_dataset_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*none\.txt"):
        load_texts(str(tmp_path / "none.txt"))


def test_one_held_out_file_stands_for_both():
    assert held_out_files("v.txt", "t.txt") == {"validation": ("v.txt", "validation"), "test": ("t.txt", "test")}
    assert held_out_files("v.txt", None) == {"validation": ("v.txt", "validation"), "test": ("v.txt", "validation")}
    assert held_out_files(None, "t.txt") == {"validation": ("t.txt", "test"), "test": ("t.txt", "test")}


def read(path, content, how="texts", **options):
    """What `load_texts` or `load_pairs` read from a file of `content`, and the same of it as a stream."""
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    file = str(path)
    if how == "texts":
        texts = load_texts(file, **options)
        stream = stream_pairs(file, lambda rows, first: as_pairs(texts_of(rows, file, "text", first)), **options)
        assert [row["target"] for row in stream] == texts
        return texts
    pairs = [(row["source"], *row["targets"]) for row in load_pairs(file, **options)]
    stream = stream_pairs(file, lambda rows, first: expand_targets(pairs_of(rows, file, "source", "targets", first)), **options)
    assert [(row["source"], row["target"]) for row in stream] == [(source, each) for source, *rest in pairs for each in rest]
    return pairs


def as_pairs(texts):
    return [{"source": text, "target": text} for text in texts]


def test_a_row_with_more_cells_than_the_header_is_read_whole_or_refused(tmp_path):
    assert read(tmp_path / "one.csv", "text\nhello, there\nyes, sir,\nno\n") == ["hello, there", "yes, sir,", "no"]
    assert read(tmp_path / "one.tsv", 'text\nhello\tthere\n"no\n') == ["hello\tthere", '"no']
    bad = [
        (
            "two.csv",
            "source,targets\na,b\nhow are you,well, thanks\n",
            r"Row 2 of .* \(line 3\), has 3 cells, and the header has 2",
        ),
        ("id.csv", "source,targets\n0,a,b\n1,c,d\n", r"Row 1 of .* has 3 cells.*'0,a,b'.* in quotation marks"),
        ("two.tsv", "source\ttargets\na\tb\tc\n", r"Row 1 of .* has 3 cells.*`quoting='minimal'`"),
        ("one.csv", 'text\nhe said "a, b", twice\n', r"Row 1 of .* has 3 cells.*`quoting='none'`"),
        ("twice.csv", "source,targets,targets\na,b,c\n", "several columns named targets"),
        ("few.csv", "source,targets\na,b\nc\n", r"Row 1 of .* has no text in `targets` \(found None\)"),
    ]
    for name, content, message in bad:
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            (load_texts if name.startswith("one") else load_pairs)(str(tmp_path / name))


def test_quotation_marks_are_text_in_a_tsv_and_enclose_cells_in_a_csv(tmp_path, caplog):
    rows = [("a row", "one"), ('"I am here', "I am present"), ("we go", "they go"), ('it is "over', 'it "ends"'), ("last", "end")]
    tabs = "source\ttargets\n" + "".join(f"{x}\t{y}\n" for x, y in rows)
    assert read(tmp_path / "pairs.tsv", tabs, "pairs") == rows
    quoted = 'source,targets\r\n"a, b","he said ""no"""\r\n"two\r\nlines",c\r\n'
    assert read(tmp_path / "pairs.csv", quoted, "pairs") == [("a, b", 'he said "no"'), ("two\nlines", "c")]
    assert "row at line 3 spans 2 lines" in caplog.text and "quoting='none'" in caplog.text
    assert read(tmp_path / "quoted.tsv", quoted.replace(",", "\t"), "pairs", quoting="minimal")[0] == ("a\t b", 'he said "no"')
    # A .tsv that looks as if it were quoted is told of, once.
    caplog.clear()
    assert read(tmp_path / "quoted.tsv", 'source\ttargets\n"a ""b"" c"\td\n', "pairs") == [('"a ""b"" c"', "d")]
    assert "read as text" in caplog.text and "quoting='minimal'" in caplog.text
    caplog.clear()
    assert read(tmp_path / "quoted.tsv", 'source\ttargets\n"a ""b"" c"\td\n', "pairs", quoting="none") and not caplog.text
    assert read(tmp_path / "plain.csv", 'source,targets\n"a,b"\n', "pairs", quoting="none") == [('"a', 'b"')]


@pytest.mark.parametrize("content", ['source,targets\na,b\n"I" am,c\n', 'source,targets\na,b\n"I am,c\nd,e\n'])
def test_stray_quotation_marks_are_refused_with_row_and_option(tmp_path, content):
    path = tmp_path / "stray.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"Line 3 of .*stray\.csv cannot .*`quoting='none'`"):
        load_pairs(str(path))
    assert len(load_pairs(str(path), quoting="none")) == content.count("\n") - 1
    with pytest.raises(ValueError, match="`quoting` is 'all'"):
        load_pairs(str(path), quoting="all")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_what_looks_like_a_number_a_date_or_nothing_is_text(tmp_path, kind):
    cells = ["007", "4", "1.50", "2020-01-01", "true", "NA", "null", "nan", "2020-01-01T10:00:00Z", "#1", "a"]
    rows = [{"source": cell, "targets": f"{cell} x", "text": cell} for cell in cells]
    if kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        lines = [separator.join(row.values()) for row in rows]
        content = "\n".join([separator.join(rows[0]), *lines])
    else:
        content = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
    assert read(tmp_path / f"cells.{kind}", content) == cells
    assert read(tmp_path / f"cells.{kind}", content, "pairs") == [(cell, f"{cell} x") for cell in cells]


def test_numbers_of_json_are_the_texts_that_json_writes(tmp_path):
    lines = '{"text": 7}\n{"text": true}\n{"text": 1.5}\n{"text": [1, "a"]}\n{"text": "x", "more": 3}\n'
    lines += '{"more": "y", "text": 10000000000000000000000}\n'
    expected = ["7", "true", "1.5", "1", "a", "x", "10000000000000000000000"]
    assert read(tmp_path / "numbers.jsonl", lines) == expected
    assert texts_of(Dataset.from_dict({"text": [7, 8]}), "mine", "text") == ["7", "8"]
    pairs = '{"source": "two and two", "targets": 4}\n{"source": 3, "targets": ["x", 7]}\n'
    assert read(tmp_path / "sums.jsonl", pairs, "pairs") == [("two and two", "4"), ("3", "x", "7")]
    path = write(tmp_path / "object.jsonl", [{"source": "a", "targets": {"b": "c"}}])
    with pytest.raises(ValueError, match=r"Row 0 of .* has no text in `targets` \(found \{'b': 'c'\}\)"):
        load_pairs(path)


def test_encodings(tmp_path):
    content = "text\nnaïve\ncafé\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
        assert read(tmp_path / "a.csv", content.encode(encoding)) == ["naïve", "café"], encoding
    assert read(tmp_path / "a.csv", content.encode("latin-1"), encoding="latin-1") == ["naïve", "café"]
    assert read(tmp_path / "a.csv", content.encode("utf-8-sig"), encoding="utf-8") == ["naïve", "café"]
    for wrong, message in ((content.encode("latin-1"), "is not in utf-8"), (content.encode("utf-16-le"), "is not in|NUL")):
        (tmp_path / "a.csv").write_bytes(wrong)
        with pytest.raises(ValueError, match=rf"({message}).*`encoding`, for instance"):
            load_texts(str(tmp_path / "a.csv"))
    (tmp_path / "plain.csv").write_bytes("text\nplain\n".encode("utf-16-be"))
    with pytest.raises(ValueError, match="NUL, as UTF-16 does"):
        load_texts(str(tmp_path / "plain.csv"))
    with pytest.raises(ValueError, match="`encoding` is 'klingon'"):
        load_texts(str(tmp_path / "a.csv"), encoding="klingon")


def test_a_line_is_what_a_line_feed_ends(tmp_path):
    long = "word " * 100_000
    content = f"a\x0cb\x85c\u2028d\x1ce\n{long}\r\nf"
    expected = ["a\x0cb\x85c\u2028d\x1ce", long.strip(), "f"]
    assert read(tmp_path / "lines.txt", content) == expected
    assert read(tmp_path / "lines.csv", f"text\n{content}") == expected
    assert read(tmp_path / "lines.tsv", f"text\n{content}") == expected
    assert (
        read(tmp_path / "lines.jsonl", "\n".join(json.dumps({"text": each}, ensure_ascii=False) for each in expected)) == expected
    )


def test_a_named_dataset_has_no_options_of_files(tmp_path):
    for call in (load_texts, load_pairs, lambda name, **options: stream_pairs(name, lambda rows, first: [], **options)):
        with pytest.raises(ValueError, match="`encoding` is given for some/name, which is not a file"):
            call("some/name", encoding="latin-1")


def test_dialogues_are_texts_whatever_json_makes_of_them(tmp_path):
    turns = [{"speaker": 0, "text": 7, "act": 1}, {"speaker": 1, "text": "2020-01-01", "act": 2}]
    path = write(tmp_path / "talk.jsonl", [{"turns": turns, "age": 3}, {"turns": turns, "age": 2.5, "response": 4}])
    first, second = load_dialogs(path, meta_columns=["age"])
    assert first["source"]["messages"] == [{"role": "0", "content": "7"}] and first["targets"] == ["2020-01-01"]
    assert first["source"]["act"] == "2" and first["source"]["meta"] == {"age": 3} and second["targets"] == ["4"]


@pytest.mark.parametrize(
    "row, message",
    [
        ({"turns": []}, "Dialogue 0 of .* has no turns"),
        ({"turns": "hello"}, "has no turns: `turns` is 'hello'"),
        ({"turns": ["hello", "you"]}, "has the turn 'hello': every turn needs a `speaker` and a `text`"),
        ({"turns": [{"speaker": "a", "text": " "}]}, "every turn needs a `speaker` and a `text`"),
        ({"turns": [{"speaker": "a", "text": "b"}], "response": " "}, "has no text in `response`"),
        ({"turns": [{"speaker": "a", "text": "b", "references": "abc"}]}, "they must be a list of texts"),
        ({"turns": [{"speaker": "a", "text": "b", "references": ["c", ""]}]}, "`references` have '' at place 1, which is no text"),
    ],
)
def test_bad_dialogues_are_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        load_dialogs(write(tmp_path / "talk.jsonl", [row]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "source;targets\na, b;c\n", "no column source, targets; .* separated by ';'.*commas"),
        ("a.csv", "source\ttargets\na\tb\n", "no column source, targets; .* separated by"),
        ("a.tsv", "source,targets\na,b\n", "no column source, targets; .* separated by ','.*tabs"),
        ("a.tsv", '"source"\t"targets"\n"a"\t"b"\n', "no column source, targets; .*`quoting='minimal'`"),
        ("a.csv", "source, targets\na, b\n", "no column targets; .*Blanks around a column's name"),
        ("a.csv", "Source,Targets\na,b\n", "no column source, targets; it has Source, Targets. Name the column"),
        ("a.csv", "source,targets\na,b,\n", "Row 1 .* has 3 cells.*'a,b,'. Take separators away from the ends of rows"),
        ("a.csv", "source,targets\ra,b\r", "end in carriage returns"),
        ("a.jsonl", '{"source": "a\\ud83d", "targets": "b"}\n', r"Row 0 .* has no text in `source` \(found 'a\\ud83d'\)"),
    ],
)
def test_tables_that_are_written_in_another_way_are_told_of(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    with pytest.raises(ValueError, match=message):
        load_pairs(str(tmp_path / name))


def test_a_text_file_with_carriage_returns_alone_is_not_one_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\rtwo\rthree")
    with pytest.raises(ValueError, match="end in carriage returns"):
        load_texts(str(tmp_path / "a.txt"))


@pytest.mark.parametrize("load", [load_texts, load_pairs, load_dialogs])
@pytest.mark.parametrize("count", [0, -1, True])
def test_a_number_of_rows_is_one_or_more(tmp_path, load, count):
    path = write(tmp_path / "a.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match="`max_rows` is"):
        load(path, max_rows=count)


TURNS = [{"speaker": "a", "text": "x"}, {"speaker": "b", "text": "y"}]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"turns": TURNS, "m": 1}, {"turns": TURNS, "m": "x"}], "Dialogue 1 .* has 'x' in m; it should be a number, as in"),
        ([{"turns": TURNS, "m": True}, {"turns": TURNS, "m": 0}], "Dialogue 1 .* has 0 in m; it should be a truth value, as in"),
        ([{"turns": TURNS, "m": [1]}], r"Dialogue 0 .* has \[1\] in m; it should be a finite number of at most 64 bits or a text"),
        (
            [{"turns": TURNS, "m": float("nan")}],
            "Dialogue 0 .* has nan in m; it should be a finite number of at most 64 bits or a text",
        ),
        ([{"turns": TURNS, "m": 1.5}, {"turns": TURNS, "m": 2**63}], r"Dialogue 1 .* has 9223372036854775808 in m; it should be a"),
        ([{"turns": TURNS, "m": 10**400}], r"Dialogue 0 .* has 10+\.\.\.0+ in m; it should be a finite number of at most 64 bits"),
        ([{"turns": [{**TURNS[0], "act": ["p"]}, TURNS[1]], "m": 1}], r"has the `act` \['p'\]; it must be a text, or null"),
        ([{"turns": TURNS, "m": 1, "response": "z", "act": ""}], "has the `act` ''; it must be a text, or null"),
        ([{"turns": TURNS, "m": 1, "response": "z", "response_speaker": "system"}], "the `response_speaker` 'system', which never"),
        ([{"turns": [{**TURNS[0], "references": 5}, TURNS[1]], "m": 1}], "the `references` 5; they must be a list of texts"),
        ([{"turns": [{**TURNS[0], "references": {"p": 1}}, TURNS[1]], "m": 1}], "they must be a list of texts"),
        ([{"turns": [{**TURNS[0], "text": "\ud83d"}, TURNS[1]], "m": 1}], "every turn needs a `speaker` and a `text`"),
    ],
)
def test_what_dialogues_tell_besides_is_checked(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        load_dialogs(write(tmp_path / "talk.jsonl", rows), meta_columns=["m"])


def test_what_the_system_says_is_no_reply(tmp_path):
    turns = [TURNS[0], {"speaker": "system", "text": "be nice"}, TURNS[1]]
    [row] = load_dialogs(write(tmp_path / "talk.jsonl", [{"turns": turns}]))
    assert [message["content"] for message in row["source"]["messages"]] == ["x", "be nice"]
    assert (row["source"]["role"], row["targets"]) == ("b", ["y"])
    with pytest.raises(ValueError, match="`max_turns` is 0"):
        load_dialogs(write(tmp_path / "talk.jsonl", [{"turns": turns}]), max_turns=0)

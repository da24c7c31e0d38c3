"""Class tables: names, WordNet ids, and valid labels."""

from collections.abc import Callable

import pytest

from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.errors import ConfigError

Write = Callable[[str, str], str]

TABLE = ClassTable(("cat", "dog", "crane", "crane"), ("n02", "n01", "n03", "n04"))


@pytest.mark.parametrize(
    ("text", "index"),
    [("0", 0), (" 12 \n", 12), ("0003", 3), ("dog", 1), ("n01", 1), ("n04", 3), ("999999999", 999_999_999)],
)
def test_a_label_is_an_index_a_name_or_a_wordnet_id(text: str, index: int) -> None:
    assert TABLE.index(text) == index


@pytest.mark.parametrize("text", ["2.0", "2.", " 2.00 ", "2.000000000000000000e+00", "0.2e1"])
def test_a_whole_float_is_the_index_that_pandas_and_numpy_wrote(text: str) -> None:
    assert TABLE.index(text) == 2
    assert not TABLE.is_doubtful(text)
    assert ClassTable(("a", "b", "c", text.strip())).index(text) == 3, "a class of that name goes first"


def test_a_name_that_classes_share_names_none_of_them() -> None:
    table = ClassTable(("red", "green", "red", "3"))
    assert (table.sharing("red"), table.sharing("green"), table.sharing("3"), table.sharing("")) == ((0, 2), (), (), ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "-1.0",
        "1.5",
        "1.0.0",
        ".0",
        "1e2",
        "Dog",
        "bird",
        "crane",
        "٣",
        "²",
        "1 2",
        "9" * 10,
        "9" * 5000,
        "True",
    ],
)
def test_any_other_label_is_unknown(text: str) -> None:
    assert TABLE.index(text) is None


def test_a_wordnet_id_wins_over_a_name() -> None:
    assert ClassTable(("n02", "x"), ("n01", "n02")).index("n02") == 1


def test_without_a_table_only_indices_are_known() -> None:
    assert (ClassTable().index("7"), ClassTable().index("cat")) == (7, None)


def test_no_table_gives_an_empty_table() -> None:
    assert load_classes(None) == ClassTable()


def test_imagenet_has_its_thousand_names() -> None:
    table = load_classes("imagenet-1k")
    assert (len(table.names), table.names[0], table.index("tench")) == (1000, "tench", 0)


def test_a_csv_is_sorted_by_its_index(write: Write) -> None:
    path = write("c.csv", "class_index,class_name,wnid\n1,dog,n2\n0,cat,n1\n")
    assert load_classes(path) == ClassTable(("cat", "dog"), ("n1", "n2"))


def test_a_csv_needs_no_wordnet_ids(write: Write) -> None:
    assert load_classes(write("c.CSV", "class_name,class_index\ncat,0\n")) == ClassTable(("cat",))


def test_a_csv_may_begin_with_a_byte_order_mark(write: Write) -> None:
    assert load_classes(write("c.csv", "\ufeffclass_index,class_name\n0,cat\n")).names == ("cat",)


def test_names_that_two_classes_share_are_kept_but_are_no_labels(write: Write) -> None:
    table = load_classes(write("c.csv", "class_index,class_name,wnid\n0,crane,n1\n1,crane,n2\n2,cat,\n3,dog,\n"))
    assert (table.names, table.index("crane"), table.index("n2")) == (("crane", "crane", "cat", "dog"), None, 1)


def test_a_text_file_has_one_name_per_line(write: Write) -> None:
    assert load_classes(write("c.txt", "cat\ndog\n")).names == ("cat", "dog")


@pytest.mark.parametrize(
    "text",
    [
        "class_index,class_name\n0,cat\n0,dog\n",
        "class_index,class_name\n0,cat\n2,dog\n",
        "class_index,class_name\n1,cat\n",
        "class_index,class_name\nx,cat\n",
        "index,name\n0,cat\n",
        "class_index,class_name\n0,cat\n\n,\n",
        "class_index,class_name\n0\n1,dog\n",
        "class_index,class_name,wnid\n0,cat,n1\n1,dog,n1\n",
    ],
    ids=["repeat", "gap", "from one", "no number", "other columns", "an empty row", "a short row", "an id for two"],
)
def test_an_invalid_class_table_is_reported(write: Write, text: str) -> None:
    with pytest.raises(ConfigError, match="is not a class table"):
        load_classes(write("c.csv", text))


def test_a_missing_table_is_reported(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_classes(str(tmp_path_factory.mktemp("none") / "c.csv"))


@pytest.mark.parametrize(
    ("text", "names", "wnids"),
    [
        ('{"id2label": {"1": "dog", "0": "cat"}, "label2id": {"cat": 0, "dog": 1}}', ("cat", "dog"), ()),
        ('{"0": "cat", "1": "dog"}', ("cat", "dog"), ()),
        ('["cat", "dog"]', ("cat", "dog"), ()),
        ('{"0": ["n02123045", "cat"], "1": ["n02084071", "dog"]}', ("cat", "dog"), ("n02123045", "n02084071")),
    ],
)
def test_a_table_may_be_the_json_of_a_model(
    write: Write, text: str, names: tuple[str, ...], wnids: tuple[str, ...]
) -> None:
    assert load_classes(write("config.json", text)) == ClassTable(names, wnids)


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[]", "{}", '{"a": "cat"}', '{"1": "cat"}', '{"0": 7}', '[["a", "b", "c"]]', "[" * 100_000]
)
def test_json_that_is_no_table_is_refused(write: Write, text: str) -> None:
    with pytest.raises(ConfigError, match=r"data.classes: '.*config.json' is not a class table"):
        load_classes(write("config.json", text))


def test_lines_of_wordnet_ids_and_names_are_both(write: Write) -> None:
    def test(lines: str) -> ClassTable:
        return load_classes(write("synsets.txt", lines))

    both = ClassTable(("tench, Tinca tinca", "goldfish"), ("n01440764", "n01443537"))
    assert test("n01440764 tench, Tinca tinca\nn01443537\tgoldfish") == both
    assert test("n01440764\nn01443537") == ClassTable(("n01440764", "n01443537"), ("n01440764", "n01443537"))
    assert test("n01440764 tench\ngoldfish") == ClassTable(("n01440764 tench", "goldfish"))


def test_letters_may_be_composed_or_decomposed() -> None:
    composed, decomposed = "\u00e9clair", "e\u0301clair"
    for written, asked in ((composed, decomposed), (decomposed, composed)):
        table = ClassTable(("cat", written))
        assert (table.index(asked), table.named(asked), table.is_alias(asked)) == (1, 1, True)
        assert (table.index(written), table.is_alias(written)) == (1, False)
    assert ClassTable(("cat",)).index(composed) is None

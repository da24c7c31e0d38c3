"""Numbers of classes in tables that store the names of their classes: they mean these names, or are refused."""

from collections.abc import Sequence

import pytest

from pipeline.data.sources import Shard
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.columns import TableFacts
from pipeline.data.sources.stored_names import names_for_display, names_to_read_by
from pipeline.errors import ConfigError

TABLE = ClassTable(("dog", "cat", "ant", "bee"))


def shard(names: Sequence[str], name: str = "0.parquet") -> Shard:
    facts = TableFacts((("image", "binary"), ("label", "int64")), (("label", tuple(names)),))
    return Shard(0, name, "parquet", name, 0, "", table=facts)


def test_numbers_are_read_by_names_that_the_class_table_has_in_another_order() -> None:
    assert names_to_read_by(shard(["cat", "ant"]), "label", TABLE) == ("cat", "ant")
    assert names_for_display([shard(["cat", "ant"]), shard(["ant", "cat"])], "label", TABLE) == ()


@pytest.mark.parametrize("names", [["dog", "foo"], ["foo", "bar"], ["cat", "doggo", "ant", "bee"]])
def test_a_name_that_the_class_table_lacks_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"'0.parquet' numbers classes of its own, and data.classes does not have '"):
        names_for_display([shard(names)], "label", TABLE)
    assert names_to_read_by(shard(names), "label", TABLE) == ()


def test_a_whole_list_in_the_order_of_the_table_may_write_a_few_names_in_another_way() -> None:
    imagenet = load_classes("imagenet-1k")
    names = list(imagenet.names)
    names[134], names[517] = "crane", "crane2"
    assert names_to_read_by(shard(names), "label", imagenet) == ()
    assert names_for_display([shard(names)], "label", imagenet) == ()


def test_a_name_of_several_classes_is_refused_in_a_part_of_a_dataset() -> None:
    with pytest.raises(ConfigError, match="'crane' is the name of several classes"):
        names_for_display([shard(["spoonbill", "crane"])], "label", load_classes("imagenet-1k"))


def test_without_a_class_table_the_stored_names_are_shown_if_all_tables_agree() -> None:
    one, other = shard(["b", "a"]), shard(["a", "b"], "1.parquet")
    assert names_for_display([one, one], "label", ClassTable()) == ("b", "a")
    with pytest.raises(ConfigError, match=r"class 0 is 'b' in '0.parquet', and 'a' in '1.parquet' \(name a table"):
        names_for_display([one, other], "label", ClassTable())

"""Numbers of classes in tables that store the names of their classes: they mean these names, or are refused."""

from collections.abc import Sequence

import pytest

from pipeline.data.sources import Shard
from pipeline.data.sources.classes import ClassTable, load_classes
from pipeline.data.sources.columns import TableFacts
from pipeline.data.sources.stored_names import agreed_names, names_to_read_by
from pipeline.errors import ConfigError

TABLE = ClassTable(("dog", "cat", "ant", "bee"))


def shard(names: Sequence[str], name: str = "0.parquet") -> Shard:
    facts = TableFacts((("image", "binary"), ("label", "int64")), (("label", tuple(names)),))
    return Shard(0, name, "parquet", name, 0, "", table=facts)


def test_numbers_are_read_by_names_that_the_class_table_has_in_another_order() -> None:
    assert names_to_read_by(shard(["cat", "ant"]), "label", TABLE) == ("cat", "ant")
    assert agreed_names([shard(["cat", "ant"]), shard(["ant", "cat"])], "label", TABLE) == ()


@pytest.mark.parametrize("names", [["dog", "foo"], ["foo", "bar"], ["cat", "doggo", "ant", "bee"]])
def test_a_name_that_the_class_table_lacks_is_refused(names: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"'0.parquet' numbers classes of its own, and data.classes does not have '"):
        agreed_names([shard(names)], "label", TABLE)
    assert names_to_read_by(shard(names), "label", TABLE) == ()


def test_a_whole_list_in_the_order_of_the_table_may_write_a_few_names_in_another_way() -> None:
    imagenet = load_classes("imagenet-1k")
    names = list(imagenet.names)
    names[517] = "crane2"
    assert names_to_read_by(shard(names), "label", imagenet) == ()
    assert agreed_names([shard(names)], "label", imagenet) == ()


def test_a_name_of_several_classes_is_refused_in_a_part_of_a_dataset() -> None:
    with pytest.raises(ConfigError, match="'crane' is the name of several classes"):
        agreed_names([shard(["spoonbill", "crane"])], "label", load_classes("imagenet-1k"))


def test_without_a_class_table_the_stored_names_are_shown_if_all_tables_agree() -> None:
    one, other = shard(["b", "a"]), shard(["a", "b"], "1.parquet")
    assert agreed_names([one, one], "label", ClassTable()) == ("b", "a")
    with pytest.raises(ConfigError, match=r"class 0 is 'b' in '0.parquet', and 'a' in '1.parquet' \(name a table"):
        agreed_names([one, other], "label", ClassTable())


def test_two_swapped_names_of_a_long_list_are_read_by_name() -> None:
    classes = ClassTable(tuple(f"class {i}" for i in range(40)))
    swapped = list(classes.names)
    swapped[3], swapped[4] = swapped[4], swapped[3]
    assert names_to_read_by(shard(swapped), "label", classes) == tuple(swapped)
    swapped[39] = "unknown"
    with pytest.raises(ConfigError, match="does not have 'unknown'"):
        agreed_names([shard(swapped)], "label", classes)


def test_without_a_class_table_the_model_must_have_as_many_classes() -> None:
    assert agreed_names([shard(["b", "a"])], "label", ClassTable(), 2) == ("b", "a")
    with pytest.raises(
        ConfigError, match=r"'0.parquet' numbers 2 classes of its own \('b', ...\), but the model has 9"
    ):
        agreed_names([shard(["b", "a"])], "label", ClassTable(), 9)

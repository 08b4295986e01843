"""Tables in Markdown."""

from markdown_table import markdown_table


def test_tables():
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    centred = markdown_table(["a", "b"], [], centred=True)
    assert centred == "| a | b |\n| --- | :-: |"

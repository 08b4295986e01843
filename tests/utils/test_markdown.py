"""Tables in Markdown."""

from captum_advise._utils.markdown import markdown_table


def test_tables():
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    centred = markdown_table(["a", "b"], [], centred=True)
    assert centred == "| a | b |\n| --- | :-: |"

from __future__ import annotations

import warnings

import pytest

from captum_advise.evaluation import image_dataset


@pytest.fixture
def read(photos, three_classes):
    """Reads a table next to the images, as (file, class) pairs."""

    def read(text, network=three_classes):
        table = photos / "table.csv"
        if isinstance(text, str):
            table.write_text(text, newline="")
        else:
            table.write_bytes(text)
        dataset = image_dataset(table, network)
        return list(zip(dataset.names, dataset.targets, strict=True))

    return read


PAIRS = [("chelsea.png", 1), ("coffee.png", None), ("none.png", 0)]


@pytest.mark.parametrize(
    "text",
    [
        "file,class\nchelsea.png,1\ncoffee.png,\nnone.png,0\n",
        'file,class,note\n"chelsea.png",1,"a, b"\ncoffee.png,,\n\nnone.png,0\n',
        "File;Class\nchelsea.png;1\ncoffee.png;\nnone.png;0\n",
        "FILE\tCLASS\nchelsea.png\t1\ncoffee.png\t\nnone.png\t0\n",
        "class,file\n1,chelsea.png\n,coffee.png\n0,none.png\n",
        "class ; File\r\n1 ; chelsea.png\r\n ; coffee.png\r\n0 ; none.png\r\n",
        "\ufefffile,class\nchelsea.png,1.0\ncoffee.png,\nnone.png,0.0\n",
        ",note,file,class\n0,x,chelsea.png,tabby cat\n1,y,coffee.png,\n2,z,none.png,TENCH\n",
        "file,class\nchelsea.png,Tabby_Cat\ncoffee.png,\nnone.png,0\n,\n",
        'file,note,class\nchelsea.png,"a; b\tc",1\ncoffee.png,,\nnone.png,"two\nlines",0\n',
    ],
)
def test_columns_are_found_by_name_and_separator(text, read):
    assert read(text) == PAIRS


def test_files_without_classes(read):
    assert read("file\nchelsea.png\ncoffee.png\n") == [("chelsea.png", None), ("coffee.png", None)]


def test_names_with_separators_are_quoted(read):
    assert read('file;class\n"a,b.png";1\n"c;d.png";2\n') == [("a,b.png", 1), ("c;d.png", 2)]
    assert read('file,class\n"a,b.png",1\n') == [("a,b.png", 1)]


def test_wordnet_ids_are_classes(read, imagenet_classes):
    text = "file,class\na.png,n01440764\nb.png,tabby\nc.png,3\n"
    assert read(text, imagenet_classes) == [("a.png", 0), ("b.png", 281), ("c.png", 3)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        # Classes
        ("file,class\na.png,0\nb.png,3\n", "Line 3 .* has .3. as class.*names none.*0 to 2.*empty"),
        ("file,class\na.png,-1\n", "Line 2 .* has '-1' as class"),
        ("file,class\na.png,cat\n", "Line 2 .* has 'cat' as class"),
        ("file,class\na.png,0\n\nb.png,1.5\n", "Line 4 .* has '1.5' as class"),
        # First lines
        ("img,category\na.png,0\n", "no column .* named class or file"),
        ("a.png,0\nb.png,1\n", "no column .* named class or file"),
        ("file,category\na.png,0\n", "no column .* named class"),
        ("class,category\n0,a.png\n", "no column .* named file"),
        ("file,label,target\na.png,cat,0\n", "no column of file, label, target is named class"),
        ("file;class,note\na.png;0,x\n", "no column of file;class, note is named class or file"),
        # Rows
        ("file\na.png,3\n", "Line 2 .* other columns"),
        ("file;class\na.png,3\n", "Line 2 .* other columns"),
        ("file,class\na,b.png,0\n", "Line 2 .* other columns"),
        ("file,class\na.png,0\nb.png\n", "Line 3 .* other columns"),
        ("file,class\n,0\n", "Line 2 .* names no file"),
        ('file,class\na.png,0\n"b.png,1\nc.png,2\n', "Line 4 .* cannot be read"),
        ('file,class\n"a.png"x,0\n', "Line 2 .* cannot be read"),
        # Duplicates
        ("file,class\na.png,0\nb.png,1\na.png,0\n", r"Line 4 .* repeats an image \(a.png\)"),
        ("file,class\na.png,0\n./a.png,0\n", "Line 3 .* repeats"),
        # No table
        ("file,class\n", "no image in"),
        ("", "no image in"),
    ],
)
def test_what_could_be_misread_is_refused(text, what, read):
    with pytest.raises(ValueError, match=what) as error:
        read(text)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")


def test_an_image_may_have_two_classes(read):
    pairs = [("a.png", 0), ("b.png", 1), ("a.png", 2)]
    assert read("file,class\na.png,0\nb.png,1\na.png,2\n") == pairs


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0", "file,class\n".encode("utf-16")])
def test_other_files_are_refused(content, read):
    with pytest.raises(ValueError, match=r"is not a CSV file in UTF-8"):
        read(content)


def test_nothing_is_said_of_a_good_table(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read("file,class\na.png,0\n")


def test_files_are_read_where_the_table_is(read, photos, three_classes):
    read("file,class\nchelsea.png,1\nnone.png,0\n")
    dataset = image_dataset(photos / "table.csv", three_classes)
    assert dataset[0][1] == 1
    with pytest.raises(FileNotFoundError, match=r"no image .*none.png"):
        dataset[1]

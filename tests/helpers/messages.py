"""What an error's message must be like."""


def one_sentence(error) -> str:
    """The message of a raised error, which is one sentence in one line."""
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text

"""What errors and warnings say."""

import warnings


def one_sentence(error) -> str:
    """The message of a raised error, which is one sentence in one line."""
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def said(call):
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]

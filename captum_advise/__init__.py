"""ADVISE visual explanations for convolutional networks, as a Captum extension."""

from captum_advise._utils.lazy_names import lazy_names

# Importing torch takes seconds, which a command line's help should not.
__getattr__, __dir__, __all__ = lazy_names(__name__)

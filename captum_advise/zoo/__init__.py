"""Named networks with their layer, pixel space, transform and class names."""

from captum_advise._utils.lazy_names import lazy_names

# The command line lists the networks without torch.
__getattr__, __dir__, __all__ = lazy_names(__name__)

"""Compare explanation methods on a model and images, from ten images to ImageNet's 50,000.

:func:`evaluate` runs the methods and writes a report. What it has computed is kept, so a run that
was killed continues, and ``torchrun`` splits it over processes. ``captum-advise evaluate`` does the
same on the command line.
"""

from captum_advise._utils.lazy_names import lazy_names

# The command line's help is shown without torch.
__getattr__, __dir__, __all__ = lazy_names(__name__)

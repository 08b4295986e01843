"""Figures and pages of explanations.

Figures come with their axes. ``overlay`` draws on the caller's axes if it gets some. All take NumPy
arrays and torch tensors. New figures belong to the caller: none is registered with
``matplotlib.pyplot``, no window opens, no display is needed and no setting of matplotlib changes.
``figure.savefig`` writes them. A notebook shows a figure that is a cell's last line, after
``%matplotlib inline``.
"""

from captum_advise._utils.lazy_names import lazy_names

# Matplotlib takes time to import, which a command line's help should not.
__getattr__, __dir__, __all__ = lazy_names(__name__)

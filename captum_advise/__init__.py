"""Visual explanations of image classifiers: make, compare and test them. Extends Captum.

- :func:`explain` makes the maps of an image in one call.
- :class:`GatedGradCam` is the recommended method: one map, from several layers.
- :class:`LayerAdvise` is the method of the ADVISE paper, as a Captum layer attribution.
- :mod:`captum_advise.evaluation` and :mod:`captum_advise.metrics` compare methods.
- :mod:`captum_advise.axioms` tests a method against axioms.
- :mod:`captum_advise.targets` explains segmentation, detection and other outputs.
- :mod:`captum_advise.zoo` and :mod:`captum_advise.visualization` load networks and draw maps.
"""

from captum_advise._utils.lazy_names import lazy_names

# Importing torch takes seconds, which a command line's help should not.
__getattr__, __dir__, __all__ = lazy_names(__name__)

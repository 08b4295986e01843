"""Axioms of attribution as a reusable property-test suite.

Derive a test class from :class:`AxiomSuite` for an attribution, or name the attribution on the
command line::

    captum-advise axioms captum.attr:LayerGradCam
"""

from captum_advise._utils.lazy_names import lazy_names

# Each module needs other packages of the extra; the command line must start without any.
__getattr__, __dir__, __all__ = lazy_names(__name__, extra="axioms")

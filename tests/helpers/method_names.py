"""Names of methods by what they need."""

from captum_advise.evaluation import get_methods, list_methods

OF_ATTENTION = tuple(
    name for name, m in get_methods(list_methods()).items() if m.layers == "attention"
)
OF_CONVOLUTIONS = tuple(name for name in list_methods() if name not in OF_ATTENTION)

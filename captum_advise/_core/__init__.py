"""What :class:`captum_advise.LayerAdvise` is made of.

``comparison`` calls the modules in this order: ``request``, ``layer_pass``, ``targets``,
``grad_cam``, ``selection`` with ``candidates`` and ``fitted_weights``, ``perturbation``,
``scoring``, ``choice``. ``suspicions`` words the warnings about settings.
"""

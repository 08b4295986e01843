"""What :class:`captum_advise.LayerAdvise` is made of, in the order in which it runs.

``request`` -> ``layer_pass`` -> ``targets`` -> ``grad_cam`` -> ``candidates`` -> ``perturbation``
-> ``scoring`` -> ``selection``.
"""

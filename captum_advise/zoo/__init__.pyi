from captum_advise.zoo.description import describe as describe
from captum_advise.zoo.images import example_image as example_image
from captum_advise.zoo.images import open_image as open_image
from captum_advise.zoo.loading import load as load
from captum_advise.zoo.network import Network as Network
from captum_advise.zoo.registry import list_networks as list_networks

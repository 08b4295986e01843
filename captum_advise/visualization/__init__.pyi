from captum_advise.visualization.explanation_page import page as page
from captum_advise.visualization.maps import gallery as gallery
from captum_advise.visualization.maps import overlay as overlay
from captum_advise.visualization.maps import overlays as overlays

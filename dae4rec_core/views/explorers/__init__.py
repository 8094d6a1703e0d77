"""The explorers, one a file: a class whose `view` draws a setting, whose `frames` shows chosen settings as ready-made
pictures, and whose `live` asks at every move. Show either with `widgets.show`.
"""

from dae4rec_core.views.explorers.cloud import CloudExplorer
from dae4rec_core.views.explorers.conformal import ConformalExplorer
from dae4rec_core.views.explorers.delta import DeltaExplorer
from dae4rec_core.views.explorers.islands import IslandExplorer
from dae4rec_core.views.explorers.maps import MapExplorer

__all__ = [
    "CloudExplorer",
    "ConformalExplorer",
    "DeltaExplorer",
    "IslandExplorer",
    "MapExplorer",
]

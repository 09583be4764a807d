"""Make the demo's station night: seven short recordings with planted sounds.

python examples/01_make_night.py demo/night
"""

import sys

from naturelm.synthetic.nights import make_night

for path in make_night(sys.argv[1]):
    print(path)

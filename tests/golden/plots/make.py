"""Draw the pictures that those of the tests are compared with.

    cd tests && python -m golden.plots.make

Look at each before it is committed.
"""

from pathlib import Path

from matplotlib.image import imsave

from unit.plot.pictures import PICTURES, pixels

for name, draw in PICTURES.items():
    imsave(Path(__file__).with_name(f"{name}.png"), pixels(draw()))

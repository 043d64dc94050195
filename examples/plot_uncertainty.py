"""
See where a prediction cannot be trusted
========================================

A network with dropout gives another answer each time it is asked. Where the answers differ, it does
not know. Here a very small network learns in seconds to find white matter in a real brain; then one
call asks it sixteen times, and a mosaic shows where it hesitates.
"""

from importlib import resources

import torch
from torch import nn

from medkit.data import read
from medkit.inference import list_regions, mc_dropout
from medkit.losses import cross_entropy_loss, dice_loss
from medkit.plot import mosaic

# %%
# The T1 template and the map of white matter that ship with nilearn, at 4 mm.
folder = resources.files("nilearn") / "datasets" / "data"
t1, white = (
    read(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz").resample(
        (4.0, 4.0, 4.0), mode="linear"
    )
    for name in ("t1", "wm")
)
image = t1.data[None].float()
image = (image - image.mean()) / image.std()
target = (white.data[None] > 127).long()

# %%
# Three layers are enough for a picture, not for a patient.
torch.manual_seed(0)
network = nn.Sequential(
    nn.Conv3d(1, 8, 3, padding=1),
    nn.ReLU(),
    nn.Dropout(0.2),
    nn.Conv3d(8, 8, 3, padding=1),
    nn.ReLU(),
    nn.Dropout(0.2),
    nn.Conv3d(8, 2, 1),
)
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
for _ in range(100):
    optimizer.zero_grad()
    logits = network(image)
    loss = dice_loss(logits, target) + cross_entropy_loss(logits, target)
    loss.backward()
    optimizer.step()
print(f"loss {loss.item():.3f}")

# %%
# Sixteen draws of dropout, in the memory of one. The mutual information is the part of the
# uncertainty on which the draws disagree.
result = mc_dropout(image, network, num_samples=16)
predicted = result.mean.argmax(1)

# %%
# The structures one by one, the largest first, with their volume and how sure the network is.
regions = list_regions(
    predicted[:, None], connectivity=26, spacing=t1.spacing, scores=result.mean[:, 1:]
)[0]
for region in regions[:3]:
    print(f"{region.volume / 1000:.1f} ml, mean probability {region.mean_score:.2f}")

# %%
# It hesitates where tissues meet, and hardly inside of white matter.
figure = mosaic(
    t1,
    labels=t1.like(predicted.to(torch.uint8)),
    names={1: "predicted white matter"},
    heat=t1.like(result.mutual_information),
    heat_label="mutual information of 16 draws (nats)",
    indices=range(9, 36, 3),
)
figure

"""``python -m medkit.train.launch``: torchrun, whose restarts can be relied on."""

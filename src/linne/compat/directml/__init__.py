"""The classification samples of DirectML for PyTorch: their flags, files, lines and arithmetic, without their faults.

Nothing here goes through `linne.training`, on purpose: what a script of theirs expects is their loop (PIL images one by
one, SGD without a schedule, the test images after each epoch), and `--faithful` computes it with all its faults, bit
for bit. `linne train cifar10` does the same job well. `defects` is the table of what differs.
"""

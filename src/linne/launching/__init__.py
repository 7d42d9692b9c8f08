"""Several processes on one machine or more: torchrun starts them, a thin supervisor starts torchrun again."""

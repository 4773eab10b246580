"""The architectures of the paper, one file each, the training loop and the checkpoints."""

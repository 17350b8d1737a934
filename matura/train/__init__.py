"""The training loop, objectives, batches, optimizers and exact resumption."""

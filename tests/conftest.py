"""One thread for every test: tiny models are fastest so, and results do not depend on the machine's cores."""

import torch

torch.set_num_threads(1)

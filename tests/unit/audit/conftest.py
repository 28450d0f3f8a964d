from __future__ import annotations

import torch

# Steps of small models are quickest in one thread, and tests share the machine's cores.
torch.set_num_threads(1)

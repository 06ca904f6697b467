"""Networks: modules with `features` (B, C, H, W) -> (B, c, h, w), `head` -> (B, K), and forward = head(features).

Each takes `num_classes`, `in_channels` and `input_size` first, then its own settings.
"""

"""Image transforms: preprocessing, augmentation, test-time augmentation, corruptions."""

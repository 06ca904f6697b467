"""Image transforms: augmentation, preprocessing, test-time views, corruptions."""

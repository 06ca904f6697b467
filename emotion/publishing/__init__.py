"""Upload of classifiers to the Hugging Face Hub, with a model card."""

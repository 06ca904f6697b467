"""Between a trained classifier and the Hugging Face Hub: its card, what is sent, what is fetched."""

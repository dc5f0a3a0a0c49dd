"""Other machines: downloads, the Hugging Face hub, a shared cache."""

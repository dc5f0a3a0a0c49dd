"""Downloads, the Hugging Face hub and a shared cache."""

"""The graphs and their contract, and how an image and prompts go through them."""

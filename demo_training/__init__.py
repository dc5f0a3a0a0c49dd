"""How the demo model was trained, and how well it segments and follows."""

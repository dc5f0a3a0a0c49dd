"""The browser, the npm packages, and the loopback server."""

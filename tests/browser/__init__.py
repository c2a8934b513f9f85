"""The example shop on two nodes, driven with a real browser: the system's Chromium, headless."""

"""A small shop on two nodes: a cart before login, logins that are remembered, and "your devices". See docs/shop.md."""

"""Commands of the shop: `open_shop`."""

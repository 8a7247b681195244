"""A shop: orders and stock, in Django with its REST framework."""

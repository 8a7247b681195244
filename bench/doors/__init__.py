"""The same handler in each framework: `bare()` is it alone, `protected()` behind the door that is made for it."""

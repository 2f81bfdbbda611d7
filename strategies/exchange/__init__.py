"""How arrays and messages travel: Flower's records, the seal, keys; and what Archipel takes from Flower's inside."""

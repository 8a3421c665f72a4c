"""What sources learn: an item-to-item table, factors, communities. Searched on the cases, refitted on everything."""

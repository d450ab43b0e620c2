"""Hostile files, tried by the thousand in processes with limits: `make fuzz`."""

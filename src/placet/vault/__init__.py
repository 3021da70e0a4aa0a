"""The vault: keeps one share of each key, and lets it go only where the owner said yes."""

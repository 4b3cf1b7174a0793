"""Campaigns: many seeded attacks on real processes. Each prints a table and can write JSON; the suite runs a few of each."""

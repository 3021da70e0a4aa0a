"""Judge evidence offline, against collateral and a given trust anchor."""

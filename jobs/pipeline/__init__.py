"""From the listing of archives to receipts of published units: what `jobs.classify` is made of."""

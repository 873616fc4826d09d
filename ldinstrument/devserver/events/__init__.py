"""What arrives: POSTs, their events, and the rows that are kept of them."""

"""From instruction bytes to records: tables generated from the rows, and the decoder that walks them."""

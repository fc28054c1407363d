"""What an x86-64 processor is: state, instruction semantics, decoder, paging, segments, exceptions."""

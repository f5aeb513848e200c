//! Entry point: the command line is parsed in `cli`, nothing else happens here.

fn main() {}

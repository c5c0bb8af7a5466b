//! The `wcodec` command.
fn main() {}

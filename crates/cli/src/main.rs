//! The `rota` program.
fn main() {}

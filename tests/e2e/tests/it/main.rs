//! Stories on a real cluster, one file each. `make e2e` runs them; by themselves they are skipped.
fn main() {}

//! Security group: worker identity, certificate renewal, selection of secrets, network policies.

mod identity;
mod network;
mod secrets;

//! Security group: worker identity, certificate renewal, selection of secrets.

mod identity;
mod secrets;

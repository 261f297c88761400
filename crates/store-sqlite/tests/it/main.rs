//! The embedded store as a whole.

mod conformance;
mod faulty;
mod group;
mod kill;
mod open;
mod twin;

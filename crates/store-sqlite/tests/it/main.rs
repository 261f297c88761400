//! The embedded store as a whole.

mod conformance;
mod faulty;
mod twin;

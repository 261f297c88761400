//! The innermost cause of an error.

use std::error::Error;

/// Returns the text of the innermost cause of an error: those around it only name the layer that has failed.
pub fn root_cause(mut error: &dyn Error) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the request failed")]
    struct Failed(#[source] io::Error);

    #[test]
    fn innermost_cause_is_named() {
        assert_eq!(root_cause(&Failed(io::Error::other("no route"))), "no route");
        assert_eq!(root_cause(&io::Error::other("no route")), "no route");
    }
}

//! Command-line arguments that may hold secrets.

use std::{convert::Infallible, fmt, str::FromStr};

/// An argument as written. It is parsed later, because an error of the command-line parser would show it.
#[derive(Clone)]
pub(crate) struct RedactedArgument(pub(super) String);

impl FromStr for RedactedArgument {
    type Err = Infallible;

    fn from_str(written: &str) -> Result<Self, Infallible> {
        Ok(Self(written.to_owned()))
    }
}

impl fmt::Debug for RedactedArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedactedArgument")
    }
}

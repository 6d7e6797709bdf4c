//! Docker's content trust, which checks images by signatures of Notary.

use clap::Args;

use crate::error::Error;

/// The flag of every command that moves images.
#[derive(Debug, Clone, Args)]
pub struct ContentTrust {
    /// Skip image verification
    #[arg(
        long = "disable-content-trust",
        value_name = "bool",
        default_value = "true",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    disabled: bool,
}

impl Default for ContentTrust {
    fn default() -> Self {
        Self { disabled: true }
    }
}

impl ContentTrust {
    /// Lets only those go on that do not rely on it.
    ///
    /// # Errors
    /// When it is asked for.
    pub fn check(&self) -> Result<(), Error> {
        match self.disabled {
            true => Ok(()),
            false => Err(Error::plain(
                "content trust is not supported: name images by their digest (NAME@sha256:…) to get exactly those",
            )),
        }
    }
}

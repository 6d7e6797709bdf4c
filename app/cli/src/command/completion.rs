//! `completion`: scripts for shells.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::error::Error;
use crate::terminal::print;

/// Shells with completion.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    /// Bash.
    Bash,
    /// Fish.
    Fish,
    /// PowerShell.
    Powershell,
    /// Zsh.
    Zsh,
}

/// Print the completion script for a shell
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff completion bash|zsh|fish|powershell")]
pub struct Completion {
    /// Shell
    #[arg(value_name = "SHELL", hide = true)]
    shell: Kind,
}

/// Carries `completion` out.
pub fn run(args: &Completion) -> Result<(), Error> {
    let shell = match args.shell {
        Kind::Bash => Shell::Bash,
        Kind::Fish => Shell::Fish,
        Kind::Powershell => Shell::PowerShell,
        Kind::Zsh => Shell::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::command(), "skiff", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(())
}

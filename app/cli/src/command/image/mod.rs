//! Image commands.

pub mod archive;
pub mod build;
pub mod context;
pub mod history;
pub mod list;
pub mod pull;
pub mod push;
pub mod remove;
mod tree;

use clap::Subcommand;

use super::Context;
use crate::error::Error;

/// Commands with the same name at the top and under `image`.
#[derive(Debug, Subcommand)]
pub enum Shared {
    Build(Box<build::Build>),
    History(history::History),
    Import(archive::Import),
    Load(archive::Load),
    Pull(pull::Pull),
    Push(push::Push),
    Save(archive::Save),
    Tag(remove::Tag),
}

/// Everything under `image`.
#[derive(Debug, Subcommand)]
pub enum Image {
    #[command(flatten)]
    Shared(Shared),
    Inspect(list::InspectImage),
    #[command(visible_alias = "list")]
    Ls(list::List),
    Prune(remove::Prune),
    #[command(visible_alias = "remove")]
    Rm(remove::Remove),
}

impl Shared {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Shared::Build(args) => build::run(context, args).await,
            Shared::History(args) => history::run(context, args).await,
            Shared::Import(args) => archive::import(context, args).await,
            Shared::Load(args) => archive::load(context, args).await,
            Shared::Pull(args) => pull::run(context, args).await,
            Shared::Push(args) => push::run(context, args).await,
            Shared::Save(args) => archive::save(context, args).await,
            Shared::Tag(args) => remove::tag(context, args).await,
        }
    }
}

impl Image {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> Result<(), Error> {
        match self {
            Image::Shared(command) => command.run(context).await,
            Image::Inspect(args) => list::inspect(context, args).await,
            Image::Ls(args) => list::run(context, args).await,
            Image::Prune(args) => remove::prune(context, args).await,
            Image::Rm(args) => remove::remove(context, args).await,
        }
    }
}

//! The engine behind the Docker API: each file joins one resource's trait to the engine's calls. Mapping only.

mod build;
mod buildkit;
mod containers;
mod convert;
mod exec;
mod history;
mod images;
mod networks;
mod system;
mod volumes;

use skiff_buildkit::BuildKit;
use skiff_engine::Engine;

/// The engine as the API sees it, and BuildKit's protocol in front of its builder.
#[derive(Debug, Clone)]
pub struct Adapter(pub Engine, pub BuildKit);

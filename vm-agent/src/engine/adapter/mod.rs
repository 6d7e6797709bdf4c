//! The engine behind the Docker API: each file joins one resource's trait to the engine's calls. Mapping only.

mod containers;
mod convert;
mod exec;
mod images;
mod networks;
mod system;
mod volumes;

use skiff_engine::Engine;

/// The engine as the API sees it.
#[derive(Debug, Clone)]
pub struct Adapter(pub Engine);

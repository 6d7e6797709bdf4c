//! What tests share: images, registries, the docker CLI, running engines.

//! Whole Dockerfiles, with a solver that knows some images and files.

mod checks;
mod configuration;
mod errors;
mod fake;
mod graphs;
mod limits;
mod requests;
mod stages;

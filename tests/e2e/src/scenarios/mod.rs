//! The scenarios, by what they are about.

use crate::Scenario;

mod archive;
mod attach;
mod bad_input;
mod build;
mod buildx;
mod caches;
mod compose;
mod create;
mod dockerfiles;
mod egress;
mod exec;
mod files;
mod git;
mod health;
mod hostile;
mod images;
mod init;
mod lifecycle;
mod limits;
mod links;
mod list;
mod load;
mod logs;
mod names;
mod network;
mod networks;
mod networks_ipv6;
mod people;
mod platforms;
mod ports;
mod push;
mod restart;
mod run;
mod system;
mod terminal;
mod tools;
mod versions;
mod volumes;

pub(crate) use dockerfiles::{DOORS, Door};

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [
        versions::ALL,
        run::ALL,
        create::ALL,
        terminal::ALL,
        attach::ALL,
        exec::ALL,
        init::ALL,
        health::ALL,
        hostile::ALL,
        restart::ALL,
        logs::ALL,
        lifecycle::ALL,
        limits::ALL,
        list::ALL,
        network::ALL,
        system::ALL,
        load::ALL,
        networks::ALL,
        networks_ipv6::ALL,
        ports::ALL,
        people::ALL,
        egress::ALL,
        names::ALL,
        links::ALL,
        compose::ALL,
        buildx::ALL,
        caches::ALL,
        platforms::ALL,
        git::ALL,
        volumes::ALL,
        files::ALL,
        archive::ALL,
        images::ALL,
        push::ALL,
        tools::ALL,
        bad_input::ALL,
        build::ALL,
        dockerfiles::ALL,
    ]
    .concat()
}

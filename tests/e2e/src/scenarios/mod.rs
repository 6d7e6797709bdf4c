//! The scenarios, by what they are about.

use crate::Scenario;

mod archive;
mod attach;
mod bad_input;
mod compose;
mod create;
mod exec;
mod health;
mod images;
mod init;
mod lifecycle;
mod links;
mod list;
mod load;
mod logs;
mod names;
mod network;
mod networks;
mod push;
mod restart;
mod run;
mod system;
mod terminal;
mod versions;
mod volumes;

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
        restart::ALL,
        logs::ALL,
        lifecycle::ALL,
        list::ALL,
        network::ALL,
        system::ALL,
        load::ALL,
        networks::ALL,
        names::ALL,
        links::ALL,
        compose::ALL,
        volumes::ALL,
        archive::ALL,
        images::ALL,
        push::ALL,
        bad_input::ALL,
    ]
    .concat()
}

//! The registry from outside: the list of the OCI distribution specification's own tests, and real clients.

#[path = "distribution/clients.rs"]
mod clients;
#[path = "distribution/content.rs"]
mod content;
#[path = "distribution/push.rs"]
mod push;
#[path = "distribution/subject.rs"]
mod subject;

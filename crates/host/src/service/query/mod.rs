//! `query`: a DNS question of any kind, answered as this host would find the answer.
//!
//! Addresses come from the system's own resolver (`getaddrinfo`): the hosts file, multicast names, VPNs and split DNS count
//! as they do for programs here. What that can't be asked (other records, and why a name has no address) is asked of the
//! name servers that the system uses at that moment. Answers are kept for as long as they say, and not beyond a change of
//! the host's network.

mod cache;
mod surroundings;
mod upstream;

use std::{net::IpAddr, sync::Arc, time::Duration};

use skiff_dns::{Code, Data, Kind, Question, Servers};
use skiff_link::{HOST_ADDRESS, HOST_ADDRESS6, Incoming, MAX_QUESTION, ReplyCode};
use tokio::{io::AsyncWriteExt, sync::Semaphore, time::timeout};

use self::cache::Cache;
use super::{egress::is_host_name, resolve};

/// How long a client may wait: libraries ask again after five seconds, and give up after some of those.
const DEADLINE: Duration = Duration::from_secs(15);
/// The system's resolver says not how long its answers live.
const SYSTEM_LIFETIME: u32 = 5;
/// A name of ours never changes.
const OWN_LIFETIME: u32 = 600;
/// Questions that wait for the system's resolver, each of which takes a thread.
const WAITING: usize = 64;

/// Answers guests' questions.
#[derive(Debug)]
pub(super) struct Resolver {
    cache: Cache,
    known: Servers,
    /// Whether the host's names stand for anything.
    host_names: bool,
    system: Arc<Semaphore>,
}

impl Resolver {
    pub(super) fn new(host_names: bool) -> Self {
        Self {
            cache: Cache::default(),
            known: Servers::default(),
            host_names,
            system: Arc::new(Semaphore::new(WAITING)),
        }
    }

    pub(super) async fn serve(&self, incoming: Incoming, hexadecimal: &str) {
        let message = match hex::decode(hexadecimal) {
            Ok(message) if message.len() <= MAX_QUESTION => message,
            _ => return incoming.refuse(ReplyCode::Invalid, "query: not a message").await,
        };
        let Some(question) = Question::parse(&message) else {
            return incoming.refuse(ReplyCode::Invalid, "query: not a question").await;
        };
        let answer = self.answer(&question, &message).await;
        // A guest that goes away needs no answer.
        if let Ok(mut stream) = incoming.accept(None).await
            && stream.write_all(&answer).await.is_ok()
        {
            let _ = stream.shutdown().await;
        }
    }

    async fn answer(&self, question: &Question, message: &[u8]) -> Vec<u8> {
        if is_host_name(&question.name) {
            return match question.kind {
                _ if !self.host_names => question.answer(Code::NameError, &[], OWN_LIFETIME),
                _ => {
                    let addresses = [HOST_ADDRESS.into(), HOST_ADDRESS6.into()].map(Data::Address);
                    question.answer(Code::NoError, &addresses, OWN_LIFETIME)
                }
            };
        }
        let surroundings = surroundings::now();
        if let Some(known) = self.cache.find(message, surroundings) {
            return known;
        }
        match timeout(DEADLINE, self.find(question, message)).await {
            Ok(Some(answer)) => {
                self.cache.keep(message, &answer, surroundings);
                answer
            }
            _ => question.answer(Code::ServerFailure, &[], 0),
        }
    }

    async fn find(&self, question: &Question, message: &[u8]) -> Option<Vec<u8>> {
        if matches!(question.kind, Kind::A | Kind::Aaaa) {
            let _place = self.system.acquire().await.ok()?;
            match resolve::lookup(&question.name).await {
                Ok(addresses) => return Some(answer_with(question, &addresses)),
                // Why there is none is known to the name servers only.
                Err(error) => tracing::debug!(%error, "system's resolver has no address"),
            }
        }
        let servers = surroundings::name_servers();
        match upstream::ask(&self.known, message, &servers).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::debug!(%error, "no name server answers");
                None
            }
        }
    }
}

/// The addresses of the kind that was asked for; having only others is no error.
fn answer_with(question: &Question, addresses: &[IpAddr]) -> Vec<u8> {
    let records: Vec<Data> = addresses.iter().copied().map(Data::Address).collect();
    question.answer(Code::NoError, &records, SYSTEM_LIFETIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: Kind) -> (Question, Vec<u8>) {
        let message = skiff_dns::query(7, name, kind).unwrap();
        (Question::parse(&message).unwrap(), message)
    }

    #[tokio::test]
    async fn the_hosts_names_have_an_address_unless_they_are_switched_off() {
        let (question, message) = ask("Host.Docker.Internal", Kind::A);
        let answer = Resolver::new(true).answer(&question, &message).await;
        assert!(answer.ends_with(&HOST_ADDRESS.octets()));
        let answer = Resolver::new(false).answer(&question, &message).await;
        assert_eq!(skiff_dns::answer::code(&answer), Some(3));
        let (question, message) = ask("gateway.docker.internal", Kind::Aaaa);
        let answer = Resolver::new(true).answer(&question, &message).await;
        assert!(answer.ends_with(&HOST_ADDRESS6.octets()));
    }

    #[tokio::test]
    async fn the_hosts_file_counts() {
        let (question, message) = ask("localhost", Kind::A);
        let answer = Resolver::new(true).answer(&question, &message).await;
        assert!(answer.ends_with(&[127, 0, 0, 1]), "{answer:?}");
    }
}

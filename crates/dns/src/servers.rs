//! Which of several name servers is asked, and when the next one.
//!
//! One that fails is followed by the next at once, one that says nothing by the next after a second, while it goes on
//! being waited for. Whoever was silent comes last for a while, so that a dead server costs one second a minute and not
//! each question.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::answer;

/// How long a server may say nothing before the next one is asked as well.
const NEXT: Duration = Duration::from_secs(1);
/// How long all of them are waited for, once the last one was asked.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long silence is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Servers remembered at most; containers can name any.
const MOST: usize = 256;

/// What is known of name servers.
#[derive(Debug, Default)]
pub struct Servers {
    /// Who was silent, and when.
    silent: Mutex<HashMap<SocketAddr, Instant>>,
}

impl Servers {
    /// Has servers asked one after the other by `ask` until one knows.
    ///
    /// # Errors
    /// When none answers. A server that failed to find out is the answer only if no other one does better.
    pub async fn ask<F>(&self, servers: &[SocketAddr], ask: impl Fn(SocketAddr) -> F) -> io::Result<Vec<u8>>
    where
        F: Future<Output = io::Result<Vec<u8>>> + Send + 'static,
    {
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "no name servers"));
        let mut waiting = self.in_order(servers).into_iter();
        let (mut asked, mut answers) = (Vec::new(), JoinSet::new());
        let mut deadline = Instant::now();
        loop {
            if let Some(server) = waiting.next() {
                let answer = ask(server);
                answers.spawn(async move { (server, answer.await) });
                asked.push(server);
                deadline = Instant::now() + if waiting.len() > 0 { NEXT } else { PATIENCE };
            } else if answers.is_empty() {
                return outcome;
            }
            match timeout_at(deadline, answers.join_next()).await {
                Ok(Some(Ok((server, result)))) => {
                    asked.retain(|other| *other != server);
                    match result {
                        Ok(answer) if knows(&answer) => {
                            self.table().remove(&server);
                            return Ok(answer);
                        }
                        Ok(answer) => outcome = Ok(answer),
                        Err(error) if outcome.is_err() => outcome = Err(error),
                        Err(_) => {}
                    }
                }
                // A task that panicked has said so.
                Ok(_) => {}
                Err(_elapsed) => {
                    self.remember_silence(&asked);
                    if waiting.len() == 0 {
                        return outcome.map_err(|_| io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// Those who answered last time, then the others.
    fn in_order(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut table = self.table();
        table.retain(|_, since| since.elapsed() < REMEMBERED);
        let mut ordered = servers.to_vec();
        ordered.sort_by_key(|server| table.contains_key(server));
        ordered
    }

    fn remember_silence(&self, of: &[SocketAddr]) {
        let mut table = self.table();
        if table.len() + of.len() > MOST {
            table.clear();
        }
        for server in of {
            // The first silence counts: after a while everybody is tried again.
            table.entry(*server).or_insert_with(Instant::now);
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a server was able and willing to answer: no failure (2), unknown operation (4) or refusal (5).
fn knows(message: &[u8]) -> bool {
    !matches!(answer::code(message), Some(2 | 4 | 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 53).into()
    }

    /// An answer with a code, from a server known by its last byte.
    fn says(server: SocketAddr, code: u8) -> Vec<u8> {
        let SocketAddr::V4(server) = server else { unreachable!("the tests are of IPv4") };
        let mut message = vec![0; 13];
        message[2] = 0x80;
        message[3] = code;
        message[12] = server.ip().octets()[3];
        message
    }

    /// Servers above 100 say nothing, those above 50 fail, those above 40 answer after three seconds.
    async fn behave(server: SocketAddr) -> io::Result<Vec<u8>> {
        let last = says(server, 0)[12];
        match last {
            101.. => std::future::pending().await,
            51.. => Ok(says(server, 2)),
            41.. => {
                tokio::time::sleep(3 * NEXT).await;
                Ok(says(server, 0))
            }
            _ => Ok(says(server, 0)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_server_costs_a_second_and_then_nothing() {
        let servers = Servers::default();
        let all = [address(101), address(1)];
        let started = Instant::now();
        assert_eq!(servers.ask(&all, behave).await.unwrap()[12], 1);
        assert_eq!(started.elapsed().as_secs(), NEXT.as_secs());
        for _ in 0..3 {
            assert_eq!(servers.ask(&all, behave).await.unwrap()[12], 1);
        }
        assert_eq!(started.elapsed().as_secs(), NEXT.as_secs());
        tokio::time::advance(REMEMBERED).await;
        let started = Instant::now();
        servers.ask(&all, behave).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), NEXT.as_secs(), "it is tried again after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_server_is_still_waited_for() {
        let servers = Servers::default();
        let found = servers.ask(&[address(41), address(101)], behave).await.unwrap();
        assert_eq!(found[12], 41);
        let started = Instant::now();
        let error = servers.ask(&[address(101), address(102)], behave).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(started.elapsed(), NEXT + PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_the_answer_only_if_nobody_knows() {
        let servers = Servers::default();
        let started = Instant::now();
        assert_eq!(servers.ask(&[address(51), address(1)], behave).await.unwrap()[12], 1);
        assert_eq!(servers.ask(&[address(51), address(52)], behave).await.unwrap()[3], 2);
        assert_eq!(started.elapsed(), Duration::ZERO, "the next one is asked at once");
        assert!(servers.ask(&[], behave).await.is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let servers = Servers::default();
        for number in 0..1000u16 {
            servers.remember_silence(&[([192, 0, 2, 1], number).into()]);
        }
        assert!(servers.table().len() <= MOST);
    }
}

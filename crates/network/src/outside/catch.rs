//! The packet filter's part: which packets are caught.

use super::queue::Verdict;
use super::{INTERFACE, LISTENER, LISTENER6, MARK, QUEUE};
use crate::Error;
use crate::nft::{Chain, ChainKind, Family, Hook, Protocol, Rule, Socket, Table};

/// Before everything that looks at connections; the second chain sees what was decided about held packets.
const HOLD: i32 = -151;
const CATCH: i32 = -150;

/// The tables that catch what leaves, one for each family.
#[derive(Debug, Clone)]
pub struct Catcher {
    name: String,
}

impl Catcher {
    /// Names the tables; nothing is done yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Catches what is routed to the tunnel, except from these bridges: what comes from there goes on as it is.
    ///
    /// # Errors
    /// When the kernel refuses; then the old table of that family stands.
    pub fn apply(&self, closed: &[String]) -> Result<(), Error> {
        let mut socket = Socket::open()?;
        for family in [Family::Ipv4, Family::Ipv6] {
            let chains = vec![hold(closed), catch(family, closed), own()];
            let done = socket.replace(&Table { name: self.name.clone(), family, owned: false, chains });
            match done {
                Err(error) if family == Family::Ipv6 && !super::has_ipv6() => {
                    tracing::debug!(%error, "a kernel without ipv6");
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Takes the tables away; what is gone already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> Result<(), Error> {
        let mut socket = Socket::open()?;
        let _ = socket.delete(Family::Ipv6, &self.name);
        socket.delete(Family::Ipv4, &self.name)
    }
}

fn skip(closed: &[String]) -> Vec<Rule> {
    closed.iter().map(|bridge| Rule::new().in_interface(bridge).accept()).collect()
}

/// Holds the first packets of connections.
fn hold(closed: &[String]) -> Chain {
    let syn = |rule: Rule| rule.protocol(Protocol::Tcp).begins_connection();
    let mut rules = skip(closed);
    rules.push(syn(Rule::new().mark(MARK)).queue(QUEUE));
    rules.push(syn(Rule::new()).leads_to(INTERFACE).queue(QUEUE));
    chain("hold", Hook::Prerouting, HOLD, rules)
}

/// Answers what was refused, and hands everything else to the listeners.
fn catch(family: Family, closed: &[String]) -> Chain {
    let v6 = family == Family::Ipv6;
    let listener = if v6 { LISTENER6 } else { LISTENER };
    let mut rules = skip(closed);
    for verdict in Verdict::ALL {
        let Some(mark) = verdict.mark() else { continue };
        let rule = Rule::new().protocol(Protocol::Tcp).mark(mark);
        rules.push(match verdict.told() {
            Some(why) => rule.unreachable(why.code(v6)),
            None => rule.reset(),
        });
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        rules.push(Rule::new().protocol(protocol).mark(MARK).transparent_proxy(listener));
        rules.push(
            Rule::new().protocol(protocol).leads_to(INTERFACE).set_mark(MARK).transparent_proxy(listener),
        );
    }
    chain("catch", Hook::Prerouting, CATCH, rules)
}

/// Sends what this machine's own processes send out through loopback, where the other chains see it.
fn own() -> Chain {
    let rules = [Protocol::Tcp, Protocol::Udp]
        .map(|protocol| Rule::new().out_interface(INTERFACE).protocol(protocol).set_mark(MARK));
    Chain { name: "own", kind: ChainKind::Route, hook: Hook::Output, priority: CATCH, rules: rules.into() }
}

fn chain(name: &'static str, hook: Hook, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name, kind: ChainKind::Filter, hook, priority, rules }
}

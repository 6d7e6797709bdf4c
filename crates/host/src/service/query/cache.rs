//! Answers that are still good.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use skiff_dns::answer;

/// Answers kept at most.
const MOST: usize = 4096;
/// The longest time any answer is kept, in seconds: not every change of the network can be seen.
const LONGEST: u32 = 300;
/// Answers beyond this are rare, and not worth their memory.
const LARGEST: usize = 4096;

/// Answers by the whole question but its number: kind, options and case count.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Of which network the answers are.
    surroundings: u64,
    answers: HashMap<Vec<u8>, Kept>,
}

#[derive(Debug)]
struct Kept {
    answer: Vec<u8>,
    since: Instant,
    lifetime: Duration,
}

impl Cache {
    /// The answer to a question, with its number and what is left of its lifetime.
    pub(super) fn find(&self, question: &[u8], surroundings: u64) -> Option<Vec<u8>> {
        let mut table = self.table(surroundings);
        let kept = table.answers.get(question.get(2..)?)?;
        let age = kept.since.elapsed();
        if age >= kept.lifetime {
            table.answers.remove(&question[2..]);
            return None;
        }
        let mut found = kept.answer.clone();
        found[..2].copy_from_slice(&question[..2]);
        answer::grow_older(&mut found, age.as_secs() as u32);
        Some(found)
    }

    /// Keeps an answer if it says for how long it is good; failures are not kept.
    pub(super) fn keep(&self, question: &[u8], found: &[u8], surroundings: u64) {
        let good = matches!(answer::code(found), Some(0 | 3)) && !answer::is_cut(found);
        let lifetime = answer::lifetime(found).unwrap_or(0).min(LONGEST);
        let Some(key) = question.get(2..).filter(|_| good && lifetime > 0 && found.len() <= LARGEST) else {
            return;
        };
        let mut table = self.table(surroundings);
        if table.answers.len() >= MOST {
            table.answers.retain(|_, kept| kept.since.elapsed() < kept.lifetime);
            if table.answers.len() >= MOST {
                table.answers.clear();
            }
        }
        let lifetime = Duration::from_secs(lifetime.into());
        let kept = Kept { answer: found.to_vec(), since: Instant::now(), lifetime };
        table.answers.insert(key.to_vec(), kept);
    }

    /// The table of this network; one of another network is emptied.
    fn table(&self, surroundings: u64) -> MutexGuard<'_, Table> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if table.surroundings != surroundings {
            table.answers.clear();
            table.surroundings = surroundings;
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use skiff_dns::{Code, Data, Kind, Question};

    use super::*;

    fn exchange(id: u16, lifetime: u32) -> (Vec<u8>, Vec<u8>) {
        let question = skiff_dns::query(id, "web.example", Kind::A).unwrap();
        let records = [Data::Address("192.0.2.1".parse().unwrap())];
        let answer = Question::parse(&question).unwrap().answer(Code::NoError, &records, lifetime);
        (question, answer)
    }

    #[test]
    fn an_answer_is_found_for_every_number_until_the_network_changes() {
        let cache = Cache::default();
        let (question, answer) = exchange(1, 60);
        cache.keep(&question, &answer, 5);
        let (other, expected) = exchange(2, 60);
        assert_eq!(cache.find(&other, 5), Some(expected));
        assert_eq!(cache.find(&other, 6), None);
        assert_eq!(cache.find(&other, 5), None, "what was learnt before the change is gone");
    }

    #[test]
    fn what_says_nothing_of_its_lifetime_and_failures_are_not_kept() {
        let cache = Cache::default();
        let (question, answer) = exchange(1, 0);
        cache.keep(&question, &answer, 0);
        assert_eq!(cache.find(&question, 0), None);
        let (question, mut failure) = exchange(1, 60);
        failure[3] |= 2;
        cache.keep(&question, &failure, 0);
        assert_eq!(cache.find(&question, 0), None);
        assert_eq!(cache.find(&[], 0), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let cache = Cache::default();
        let (question, answer) = exchange(1, 60);
        for number in 0..2 * MOST as u32 {
            let mut other = question.clone();
            other.extend(number.to_be_bytes());
            cache.keep(&other, &answer, 0);
        }
        assert!(cache.table(0).answers.len() <= MOST);
    }
}

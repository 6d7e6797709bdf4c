//! Variables by name, in the order in which they were set first.

use std::collections::HashMap;

use crate::dockerfile::fault::{Fault, Result};

/// How many bytes all variables of a stage may have together; what the kernel takes for a process is less.
const MAX_BYTES: usize = 4 << 20;

/// Variables by name.
#[derive(Debug, Clone, Default)]
pub struct Variables {
    entries: Vec<(String, String)>,
    index: HashMap<String, usize>,
    bytes: usize,
}

impl Variables {
    /// Returns a variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.index.get(name).map(|at| self.entries[*at].1.as_str())
    }

    /// Sets a variable; one that is there keeps its place.
    ///
    /// # Errors
    /// More than all variables together may have.
    pub fn set(&mut self, name: &str, value: impl Into<String>) -> Result<()> {
        let value = value.into();
        match self.index.get(name) {
            Some(at) => {
                let old = &mut self.entries[*at].1;
                self.bytes = self.bytes - old.len() + value.len();
                *old = value;
            }
            None => {
                self.bytes += name.len() + value.len() + 2;
                self.index.insert(name.to_owned(), self.entries.len());
                self.entries.push((name.to_owned(), value));
            }
        }
        if self.bytes > MAX_BYTES {
            return Err(Fault::new(format!("the environment is larger than {} MiB", MAX_BYTES >> 20)));
        }
        Ok(())
    }

    /// Returns their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// Returns them as `NAME=value`.
    pub fn to_list(&self) -> Vec<String> {
        self.entries.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// How many bytes they have together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

//! What is printed: values, tables, sizes, times.

pub mod list;
pub mod table;
pub mod time;
pub mod units;
pub mod value;

//! Settings and every path the product uses.

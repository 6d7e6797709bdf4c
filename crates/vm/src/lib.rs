//! Virtual machine backends behind one trait.

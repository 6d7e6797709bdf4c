//! The container engine: containers, execs, logs, events and their durable state.

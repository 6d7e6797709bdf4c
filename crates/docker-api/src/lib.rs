//! The Docker Engine API as a server: routes, models, version negotiation, hijacking.

//! The host daemon: Docker socket, control socket, and the host's half of every link service.

//! The HTTP API on the Unix socket and on loopback: routes, authentication, views, stream.

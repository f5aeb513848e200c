//! The documents that security teams write: as written, then valid, with every problem in its place.
